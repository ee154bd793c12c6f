// What the pages of the admin endpoint are made of: JSON, problems, and the same JSON as tables for a person with a browser.
#pragma once

#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

#include "base/time.h"
#include "proxy/admin.h"

namespace outrider::proxy {

using Json = nlohmann::ordered_json;

AdminReply json_reply(const Json& json, int status = 200);
AdminReply admin_problem(int status, std::string_view detail);
AdminReply text_reply(int status, std::string body);

// The parameter's value as it stands; "1" for one without, empty when there is none.
std::string query_parameter(std::string_view query, std::string_view name);

bool wants_html(const AdminRequest& request);
// The reply's JSON as tables, for those who want HTML.
AdminReply as_html(const AdminRequest& request, AdminReply reply);
void append_html(std::string& out, std::string_view s);
void append_html_value(std::string& out, const Json& json);
std::string html_page(std::string_view title, std::string_view body);

// RFC 3339, whole seconds, UTC.
std::string rfc3339(WallTime time);

}  // namespace outrider::proxy
