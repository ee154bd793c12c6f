#include "proxy/admin_reply.h"

#include <algorithm>
#include <ctime>
#include <optional>
#include <vector>

#include "base/http/message.h"
#include "proxy/problem.h"

namespace outrider::proxy {

AdminReply json_reply(const Json& json, int status) {
    return {status, "application/json", json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n", {}};
}

AdminReply admin_problem(int status, std::string_view detail) {
    return {status, "application/problem+json", problem_json({{}, status, detail, {}, {}, {}}), {}};
}

AdminReply text_reply(int status, std::string body) {
    return {status, "text/plain; charset=utf-8", std::move(body), {}};
}

std::string query_parameter(std::string_view query, std::string_view name) {
    std::optional<std::string> found;
    http::for_each_parameter(query, [&](std::string_view each, std::optional<std::string_view> value) {
        if (each == name) found = value.value_or("1");
        return !found;
    });
    return found.value_or("");
}

void append_html(std::string& out, std::string_view s) {
    for (const char c : s) {
        switch (c) {
            case '<':
                out += "&lt;";
                break;
            case '>':
                out += "&gt;";
                break;
            case '&':
                out += "&amp;";
                break;
            case '"':
                out += "&quot;";
                break;
            default:
                out += c;
        }
    }
}

namespace {

// What an operator looks for first is coloured.
void append_html_text(std::string& out, const std::string& text) {
    const bool good = text == "healthy" || text == "ready";
    const bool bad = text == "unhealthy" || text == "ejected";
    if (good || bad) out += good ? "<b class=\"ok\">" : "<b class=\"bad\">";
    append_html(out, text);
    if (good || bad) out += "</b>";
}

// A row for each object, a column for each key that any of them has.
void append_html_rows(std::string& out, const Json& objects) {
    std::vector<std::string> columns;
    for (const Json& object : objects) {
        for (const auto& [key, value] : object.items()) {
            if (std::find(columns.begin(), columns.end(), key) == columns.end()) columns.push_back(key);
        }
    }
    out += "<table><tr>";
    for (const std::string& column : columns) {
        out += "<th>";
        append_html(out, column);
        out += "</th>";
    }
    out += "</tr>";
    for (const Json& object : objects) {
        out += "<tr>";
        for (const std::string& column : columns) {
            out += "<td>";
            if (const auto it = object.find(column); it != object.end()) append_html_value(out, *it);
            out += "</td>";
        }
        out += "</tr>";
    }
    out += "</table>";
}

}  // namespace

// Objects as two-column tables, lists of objects as one table.
void append_html_value(std::string& out, const Json& json) {
    const auto is_object = [](const Json& value) { return value.is_object(); };
    if (json.is_array() && !json.empty() && std::all_of(json.begin(), json.end(), is_object)) {
        append_html_rows(out, json);
        return;
    }
    if (json.is_object()) {
        out += "<table>";
        for (const auto& [key, value] : json.items()) {
            out += "<tr><th>";
            append_html(out, key);
            out += "</th><td>";
            append_html_value(out, value);
            out += "</td></tr>";
        }
        out += "</table>";
    } else if (json.is_array()) {
        out += "<ul>";
        for (const auto& value : json) {
            out += "<li>";
            append_html_value(out, value);
            out += "</li>";
        }
        out += "</ul>";
    } else {
        append_html_text(out, json.is_string() ? json.get<std::string>() : json.dump());
    }
}

std::string html_page(std::string_view title, std::string_view body) {
    std::string out = "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>outrider: ";
    append_html(out, title);
    out +=
        "</title><meta name=\"viewport\" content=\"width=device-width\"><style>"
        "body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:70rem;padding:0 "
        "1rem;color:#1c2430}"
        "nav a{margin-right:1rem}table{border-collapse:collapse;margin:.3rem 0}"
        "th,td{text-align:left;vertical-align:top;padding:.2rem .8rem .2rem 0;border-bottom:1px solid "
        "#e3e7ee}"
        "th{font-weight:600;color:#4a5568}ul{margin:0;padding-left:1.1rem}h1{font-size:1.3rem}h2{font-size:1."
        "05rem;margin-top:1.6rem}"
        ".ok{color:#0a7d33}.bad{color:#b3261e}</style></head><body><nav>";
    for (const char* page : {"/", "/clusters", "/listeners", "/routes", "/idempotency", "/server_info",
                             "/config", "/metrics", "/help"}) {
        out += std::string("<a href=\"") + page + "\">" + (page[1] == '\0' ? "dashboard" : page + 1) + "</a>";
    }
    out += "</nav><h1>";
    append_html(out, title);
    out += "</h1>";
    out += body;
    out += "</body></html>\n";
    return out;
}

bool wants_html(const AdminRequest& request) {
    return request.accept.find("text/html") != std::string::npos;
}

// A page for a person with a browser.
AdminReply as_html(const AdminRequest& request, AdminReply reply) {
    if (!wants_html(request)) return reply;
    std::string body;
    if (reply.content_type == "application/json") {
        append_html_value(body, Json::parse(reply.body, nullptr, false));
    } else {
        body = "<pre>";
        append_html(body, reply.body);
        body += "</pre>";
    }
    return {reply.status, "text/html; charset=utf-8", html_page(request.path.substr(1), body), reply.allow};
}

std::string rfc3339(WallTime time) {
    const std::time_t seconds = time.unix_seconds();
    std::tm parts{};
    ::gmtime_r(&seconds, &parts);
    char text[32];
    return {text, std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &parts)};
}

}  // namespace outrider::proxy
