#include "demo/ledger_api.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <optional>

#include <nlohmann/json.hpp>

namespace outrider::demo {

namespace {
using Json = nlohmann::ordered_json;
using http::Method;

std::string dump(const Json& json) {
    // A problem's detail may quote what a client sent, which need not be UTF-8.
    return json.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
}

Answer json_answer(int status, const Json& json) {
    Answer answer;
    answer.status = status;
    answer.body = dump(json);
    return answer;
}

Answer method_not_allowed(std::string_view allow) {
    Answer answer = problem(405, "this resource allows " + std::string(allow));
    answer.allow = allow;
    return answer;
}

bool reads(Method method) {
    return method == Method::kGet || method == Method::kHead;
}

// RFC 9110 section 8.3.1: the media type is case-insensitive, parameters follow a semicolon.
bool is_json(std::string_view content_type) {
    std::string_view type = content_type.substr(0, content_type.find(';'));
    while (!type.empty() && (type.back() == ' ' || type.back() == '\t'))
        type.remove_suffix(1);
    constexpr std::string_view kWanted = "application/json";
    return std::equal(type.begin(), type.end(), kWanted.begin(), kWanted.end(), [](char a, char b) {
        return (a >= 'A' && a <= 'Z' ? static_cast<char>(a + 32) : a) == b;
    });
}

// The body of a POST as JSON, or why not.
std::optional<Answer> read_json(const ApiRequest& request, Json& out) {
    if (!is_json(request.content_type)) return problem(415, "Content-Type must be application/json");
    // Deeper than a member of a bulk's element nothing means anything; not building it keeps a nest of brackets cheap.
    const auto shallow = [](int depth, Json::parse_event_t, Json&) { return depth <= 3; };
    out = Json::parse(request.body, shallow, false);
    if (out.is_discarded()) return problem(400, "the body is not valid JSON");
    return std::nullopt;
}

struct Page {
    std::uint64_t after = 0;
    std::size_t limit = LedgerApi::kListLimitDefault;
};

std::optional<Answer> read_page(std::string_view query, Page& page) {
    while (!query.empty()) {
        const std::string_view pair = query.substr(0, query.find('&'));
        query.remove_prefix(std::min(pair.size() + 1, query.size()));
        if (pair.empty()) continue;
        const std::string_view name = pair.substr(0, pair.find('='));
        const std::string_view value = pair.substr(std::min(name.size() + 1, pair.size()));
        std::uint64_t number = 0;
        if (name != "after" && name != "limit") {
            return problem(400, "unknown parameter '" + std::string(name) + "'; known: after, limit");
        }
        if (!read_number(value, number)) return problem(400, std::string(name) + " must be a whole number");
        if (name == "after") {
            page.after = number;
        } else if (number < 1 || number > LedgerApi::kListLimitMax) {
            return problem(400, "limit must be 1 to " + std::to_string(LedgerApi::kListLimitMax));
        } else {
            page.limit = static_cast<std::size_t>(number);
        }
    }
    return std::nullopt;
}

Json to_json(const Account& account) {
    return {{"id", account.id.value}, {"balance", account.balance.value}, {"transfers", account.transfers}};
}

Json to_json(const Transfer& transfer) {
    return {{"id", transfer.id.value},
            {"from", transfer.from.value},
            {"to", transfer.to.value},
            {"amount", transfer.amount.value}};
}

Json to_json(const Posted& posted) {
    Json out = to_json(posted.transfer);
    out["balances"] = {{std::to_string(posted.transfer.from.value), posted.from_balance.value},
                       {std::to_string(posted.transfer.to.value), posted.to_balance.value}};
    return out;
}

// One transfer as it was asked for, carried out; an alternative without a Posted says why not.
struct Attempt {
    int status = 201;
    std::string error;
    Posted posted{};
    std::string reference{};
};

// A word without spaces: one line of a journal.
bool read_reference(const Json& json, std::string& out) {
    constexpr std::size_t kMax = 128;
    constexpr std::string_view kAllowed =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.:";
    if (!json.is_string()) return false;
    out = json.get<std::string>();
    return !out.empty() && out.size() <= kMax && out.find_first_not_of(kAllowed) == std::string::npos;
}

bool read_id(const Json& json, AccountId& out) {
    if (!json.is_number_integer()) return false;
    // Whatever an account cannot have as its id is an account that does not exist.
    const bool possible = json.is_number_unsigned() && json.get<std::uint64_t>() <= Ledger::kAccountsMax;
    out.value = possible ? static_cast<std::uint32_t>(json.get<std::uint64_t>()) : 0;
    return true;
}

bool read_amount(const Json& json, Cents& out) {
    if (!json.is_number_integer()) return false;
    constexpr auto kMax = std::numeric_limits<std::int64_t>::max();
    const bool huge = json.is_number_unsigned() && json.get<std::uint64_t>() > std::uint64_t{kMax};
    out.value = huge ? kMax : json.get<std::int64_t>();
    return true;
}

Attempt attempt(Ledger& ledger, const LedgerApi::OnPosted& on_posted, const Json& json) {
    if (!json.is_object()) return {400, "a transfer is an object with from, to and amount"};
    for (const char* name : {"from", "to", "amount"}) {
        if (!json.contains(name)) return {400, std::string(name) + " is missing"};
    }
    AccountId from;
    AccountId to;
    Cents amount;
    if (!read_id(json["from"], from)) return {400, "from must be an account's number"};
    if (!read_id(json["to"], to)) return {400, "to must be an account's number"};
    if (!read_amount(json["amount"], amount)) return {400, "amount must be a whole number of cents"};
    std::string reference;
    if (json.contains("reference") && !read_reference(json["reference"], reference))
        return {400, "reference must be 1 to 128 letters, digits and \"-_.:\""};
    const auto outcome = ledger.transfer(from, to, amount);
    if (const auto* posted = std::get_if<Posted>(&outcome)) {
        if (on_posted) on_posted(reference, posted->transfer);
        return {201, {}, *posted, std::move(reference)};
    }
    switch (std::get<Refusal>(outcome)) {
        case Refusal::kUnknownAccount:
            return {404, "no such account"};
        case Refusal::kSameAccount:
            return {400, "from and to are the same account"};
        case Refusal::kAmountNotPositive:
            return {400, "amount must be at least 1"};
        case Refusal::kInsufficientFunds:
            return {409, "insufficient funds"};
    }
    return {500, "unknown refusal"};
}

}  // namespace

Answer problem(int status, std::string_view detail) {
    Answer answer = json_answer(status, {{"type", "about:blank"},
                                         {"title", http::reason_phrase(status)},
                                         {"status", status},
                                         {"detail", detail}});
    answer.content_type = "application/problem+json";
    return answer;
}

bool read_number(std::string_view text, std::uint64_t& out) {
    const char* const end = text.data() + text.size();
    const auto [stop, error] = std::from_chars(text.data(), end, out);
    return error == std::errc() && stop == end && !text.empty();
}

Answer LedgerApi::answer(const ApiRequest& request) {
    const std::string_view path = request.path;
    const bool get = reads(request.method);
    const bool post = request.method == Method::kPost;
    constexpr std::string_view kAccount = "/accounts/";
    constexpr std::string_view kTransfer = "/transfers/";
    if (path == "/healthz") return get ? health() : method_not_allowed("GET, HEAD");
    if (path == "/control") {
        return get ? show_controls() : post ? set_controls(request) : method_not_allowed("GET, HEAD, POST");
    }
    if (path == "/accounts") return get ? list_accounts(request) : method_not_allowed("GET, HEAD");
    if (path.starts_with(kAccount)) {
        return get ? show_account(path.substr(kAccount.size())) : method_not_allowed("GET, HEAD");
    }
    if (path == "/transfers") {
        return get    ? list_transfers(request)
               : post ? post_transfer(request)
                      : method_not_allowed("GET, HEAD, POST");
    }
    if (path == "/transfers/bulk") return post ? post_bulk(request) : method_not_allowed("POST");
    if (path.starts_with(kTransfer)) {
        return get ? show_transfer(path.substr(kTransfer.size())) : method_not_allowed("GET, HEAD");
    }
    return problem(404,
                   "no such resource; there are /accounts /transfers /transfers/bulk /healthz /control /echo "
                   "/bytes/{n} /chunked/{n}");
}

Answer LedgerApi::list_accounts(const ApiRequest& request) const {
    Page page;
    if (auto refused = read_page(request.query, page)) return *refused;
    Json list = Json::array();
    std::uint64_t last = std::min<std::uint64_t>(page.after, Ledger::kAccountsMax);
    for (const Account& account : ledger_.accounts({static_cast<std::uint32_t>(last)}, page.limit)) {
        list.push_back(to_json(account));
    }
    Json out = {{"accounts", list}};
    last += list.size();
    if (!list.empty() && last < ledger_.account_count()) out["next"] = last;
    out["total_balance"] = ledger_.total().value;
    return json_answer(200, out);
}

Answer LedgerApi::show_account(std::string_view id) const {
    std::uint64_t number = 0;
    if (!read_number(id, number) || number > Ledger::kAccountsMax) return problem(404, "no such account");
    const auto account = ledger_.account({static_cast<std::uint32_t>(number)});
    return account ? json_answer(200, to_json(*account)) : problem(404, "no such account");
}

Answer LedgerApi::list_transfers(const ApiRequest& request) const {
    Page page;
    if (auto refused = read_page(request.query, page)) return *refused;
    const auto found = ledger_.transfers({page.after}, page.limit);
    Json list = Json::array();
    for (const Transfer& transfer : found)
        list.push_back(to_json(transfer));
    Json out = {{"transfers", list}};
    if (!found.empty() && found.back().id < ledger_.last_transfer()) out["next"] = found.back().id.value;
    return json_answer(200, out);
}

Answer LedgerApi::show_transfer(std::string_view id) const {
    TransferId wanted;
    if (!read_number(id, wanted.value)) return problem(404, "no such transfer");
    if (ledger_.forgotten(wanted)) return problem(410, "so old a transfer is no longer kept");
    const auto transfer = ledger_.find(wanted);
    return transfer ? json_answer(200, to_json(*transfer)) : problem(404, "no such transfer");
}

Answer LedgerApi::post_transfer(const ApiRequest& request) {
    Json json;
    if (auto refused = read_json(request, json)) return *refused;
    const Attempt made = attempt(ledger_, on_posted_, json);
    if (made.status != 201) return problem(made.status, made.error);
    Json out = to_json(made.posted);
    if (!made.reference.empty()) out["reference"] = made.reference;
    Answer answer = json_answer(201, out);
    answer.location = "/transfers/" + std::to_string(made.posted.transfer.id.value);
    return answer;
}

Answer LedgerApi::post_bulk(const ApiRequest& request) {
    Json json;
    if (auto refused = read_json(request, json)) return *refused;
    if (!json.is_array()) return problem(400, "the body must be an array of transfers");
    if (json.size() > kBulkMax)
        return problem(413, "at most " + std::to_string(kBulkMax) + " transfers at once");
    Json out = Json::array();
    for (const Json& each : json) {
        const Attempt made = attempt(ledger_, on_posted_, each);
        Json element = {{"status", made.status}};
        if (made.status == 201) {
            element.update(to_json(made.posted));
            if (!made.reference.empty()) element["reference"] = made.reference;
        } else {
            element["error"] = made.error;
        }
        out.push_back(std::move(element));
    }
    return json_answer(200, out);
}

Answer LedgerApi::health() const {
    return controls_.healthy ? json_answer(200, {{"status", "ok"}})
                             : problem(503, "set unhealthy by /control");
}

Answer LedgerApi::show_controls() const {
    return json_answer(200, {{"latency_ms", controls_.latency_ms},
                             {"fail_percent", controls_.fail_percent},
                             {"fail_status", controls_.fail_status},
                             {"fail_after_effect", controls_.fail_after_effect},
                             {"healthy", controls_.healthy},
                             {"hang", controls_.hang},
                             {"observed", {{"last_transfer", ledger_.last_transfer().value}}}});
}

Answer LedgerApi::set_controls(const ApiRequest& request) {
    Json json;
    if (auto refused = read_json(request, json)) return *refused;
    if (!json.is_object()) return problem(400, "the body must be an object");
    Controls next = controls_;  // all of a change or none of it
    for (const auto& [name, value] : json.items()) {
        const auto within = [&v = value](double least, double most) {
            return v.is_number() && v.get<double>() >= least && v.get<double>() <= most;
        };
        bool fits = false;
        if (name == "latency_ms") {
            if ((fits = value.is_number_integer() && within(0, kLatencyMax)))
                next.latency_ms = value.get<std::uint32_t>();
        } else if (name == "fail_percent") {
            if ((fits = within(0, 100))) next.fail_percent = value.get<double>();
        } else if (name == "fail_status") {
            fits = value.is_number_integer() && (within(0, 0) || within(400, 599));
            if (fits) next.fail_status = value.get<int>();
        } else if (name == "fail_after_effect" || name == "healthy" || name == "hang") {
            bool& flag = name == "hang"      ? next.hang
                         : name == "healthy" ? next.healthy
                                             : next.fail_after_effect;
            if ((fits = value.is_boolean())) flag = value.get<bool>();
        } else {
            return problem(400, "unknown member '" + name + "'; GET /control shows those there are");
        }
        if (!fits) return problem(400, name + ": not a value it can have");
    }
    controls_ = next;
    return show_controls();
}

}  // namespace outrider::demo
