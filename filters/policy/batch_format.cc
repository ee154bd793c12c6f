#include "filters/policy/batch_format.h"

#include <algorithm>
#include <cstring>

#include <simdjson.h>

#include "base/bytes.h"
#include "base/check.h"
#include "filters/policy/json_slices.h"

namespace outrider::policy {

namespace dom = simdjson::dom;

class JsonReader {
  public:
    // The parser wants room for a few bytes at least; the caller has checked the size.
    JsonReader(std::size_t bytes_max, std::size_t depth_max)
        : parser_(std::max<std::size_t>(bytes_max, simdjson::SIMDJSON_PADDING)) {
        const auto code = parser_.allocate(std::min<std::size_t>(bytes_max, 4096), depth_max);
        require(code == simdjson::SUCCESS, "there is memory for a parser");
    }

    // Copies the text to where it may be parsed; the view is valid until the next call.
    std::string_view hold(std::string_view text) {
        const std::size_t needed = text.size() + simdjson::SIMDJSON_PADDING;
        if (buffer_.size() < needed) buffer_.resize(needed);
        text.copy(buffer_.data(), text.size());  // may be empty, without data
        std::memset(buffer_.data() + text.size(), ' ', simdjson::SIMDJSON_PADDING);
        return {buffer_.data(), text.size()};
    }
    // A part of what is held. The element is valid until the next call.
    std::optional<dom::element> parse(std::string_view held) {
        if (held.substr(0, 3) == "\xef\xbb\xbf") {
            error_ = "it begins with a byte order mark";
            return std::nullopt;
        }
        dom::element element;
        const simdjson::error_code code = parser_.parse(held.data(), held.size(), false).get(element);
        if (code == simdjson::SUCCESS) return element;
        error_ = sentence(code);
        return std::nullopt;
    }
    const std::string& error() const { return error_; }

  private:
    static std::string sentence(simdjson::error_code code) {
        switch (code) {
            case simdjson::EMPTY:
                return "it is empty";
            case simdjson::CAPACITY:
                return "it is too large";
            case simdjson::DEPTH_ERROR:
                return "it is nested too deeply";
            case simdjson::UTF8_ERROR:
                return "it is not UTF-8";
            case simdjson::NUMBER_ERROR:
                return "a number in it is malformed or does not fit into 64 bits";
            case simdjson::MEMALLOC:
                return "there was no memory to check it";
            default:
                return "it is not one JSON value";
        }
    }

    dom::parser parser_;
    std::string buffer_;
    std::string error_;
};

namespace {

// A member of an object, by name, as the DOM and as text; `count`: how often the name is there.
struct Member {
    dom::element element;
    std::string_view text;
    std::size_t count = 0;
};

template <std::size_t N>
std::array<Member, N> find_members(dom::object object, std::string_view text,
                                   const std::array<std::string_view, N>& names) {
    std::array<Member, N> found;
    JsonSlices slices(text);
    for (const dom::key_value_pair pair : object) {
        const std::string_view value = slices.next();
        for (std::size_t i = 0; i < N; ++i) {
            if (pair.key != names[i]) continue;
            found[i].element = pair.value;
            found[i].text = value;
            ++found[i].count;
        }
    }
    return found;
}

bool is_token(std::string_view name) {
    constexpr std::string_view kOthers = "!#$%&'*+-.^_`|~";
    return !name.empty() && std::all_of(name.begin(), name.end(), [&](char c) {
        return ascii_digit(c) || (ascii_lower(c) >= 'a' && ascii_lower(c) <= 'z') ||
               kOthers.find(c) != std::string_view::npos;
    });
}
bool is_field_value(std::string_view value) {
    return std::none_of(value.begin(), value.end(), [](char c) {
        const auto byte = static_cast<unsigned char>(c);
        return (byte < 0x20 && c != '\t') || byte == 0x7f;
    });
}
// Framing and the connection are this hop's own business.
bool is_dropped(std::string_view name) {
    constexpr std::array<std::string_view, 8> kNames = {
        "Connection", "Content-Length", "Keep-Alive",        "Proxy-Connection",
        "TE",         "Trailer",        "Transfer-Encoding", "Upgrade"};
    return std::any_of(kNames.begin(), kNames.end(), [&](std::string_view n) { return iequals(n, name); });
}

constexpr std::size_t kFieldsMax = 100;

bool add_field(BatchSplitter::Part& part, std::string_view name, dom::element value) {
    std::string_view text;
    if (value.get(text) != simdjson::SUCCESS || !is_field_value(text)) return false;
    if (is_dropped(name)) return true;
    if (part.fields.size() >= kFieldsMax) return false;
    part.fields.emplace_back(name, trim_ows(text));
    return true;
}

bool read_fields(BatchSplitter::Part& part, dom::element headers) {
    dom::object object;
    if (headers.get(object) != simdjson::SUCCESS) return false;
    for (const dom::key_value_pair field : object) {
        if (!is_token(field.key)) return false;
        dom::array values;
        if (field.value.get(values) != simdjson::SUCCESS) {
            if (!add_field(part, field.key, field.value)) return false;
            continue;
        }
        for (const dom::element value : values) {
            if (!add_field(part, field.key, value)) return false;
        }
    }
    return true;
}

BatchSplitter::Part failed_part(std::string_view why) {
    BatchSplitter::Part part;
    part.error = why;
    return part;
}

BatchSplitter::Part read_element(bool envelope, dom::element element, std::string_view text) {
    BatchSplitter::Part part;
    if (!envelope) {
        part.body[0] = text;
        return part;
    }
    dom::object object;
    if (element.get(object) != simdjson::SUCCESS)
        return failed_part("its part of the batch's answer is not an object with a status");
    const auto [status, headers, body] = find_members<3>(object, text, {"status", "headers", "body"});
    if (status.count > 1 || headers.count > 1 || body.count > 1)
        return failed_part("its part of the batch's answer has a status, headers or a body twice");
    std::int64_t code = 0;
    if (status.count == 0 || status.element.get(code) != simdjson::SUCCESS || code < 200 || code > 599)
        return failed_part("its part of the batch's answer has no status from 200 to 599");
    part.status = static_cast<int>(code);
    if (headers.count == 1 && !read_fields(part, headers.element))
        return failed_part("its part of the batch's answer has headers that are no HTTP fields");
    if (body.count == 1) part.body[0] = body.text;
    return part;
}

Error wrong_count(std::size_t count, std::size_t items, std::string_view what) {
    return {"the batch's answer has " + std::to_string(count) + " " + std::string(what) + " for " +
            std::to_string(items) + " requests"};
}

// The index of the item that a JSON-RPC response answers; its part is filled. Nothing: nobody's.
std::optional<std::size_t> take_response(dom::element element, std::string_view text,
                                         std::span<const BatchItem* const> items,
                                         std::vector<BatchSplitter::Part>& parts) {
    dom::object object;
    if (element.get(object) != simdjson::SUCCESS) return std::nullopt;
    const auto [id] = find_members<1>(object, text, {"id"});
    std::uint64_t number = 0;
    if (id.count != 1 || id.element.get(number) != simdjson::SUCCESS) return std::nullopt;
    if (number == 0 || number > items.size() || items[number - 1]->notification) return std::nullopt;
    const std::size_t index = number - 1;
    const auto begin = static_cast<std::size_t>(id.text.data() - text.data());
    parts[index].body = {text.substr(0, begin), items[index]->id(), text.substr(begin + id.text.size())};
    return index;
}

// Nothing: `item` is filled.
std::optional<std::string> read_rpc_request(dom::element element, std::string_view text, BatchItem& item) {
    dom::object object;
    if (element.get(object) != simdjson::SUCCESS) return "a JSON-RPC request is an object";
    const auto [version, method, id] = find_members<3>(object, text, {"jsonrpc", "method", "id"});
    std::string_view value;
    if (version.count != 1 || version.element.get(value) != simdjson::SUCCESS || value != "2.0")
        return R"(a JSON-RPC request says "jsonrpc": "2.0")";
    if (method.count != 1 || !method.element.is_string())
        return "a JSON-RPC request has one method, a string";
    if (id.count > 1) return "a JSON-RPC request has one id";
    item.notification = id.count == 0;
    if (item.notification) return std::nullopt;
    if (!id.element.is_string() && !id.element.is_number() && !id.element.is_null())
        return "the id of a JSON-RPC request is a string, a number or null";
    item.id_begin = static_cast<std::size_t>(id.text.data() - text.data());
    item.id_size = id.text.size();
    return std::nullopt;
}

}  // namespace

// --- admission ------------------------------------------------------------------------------------------------

BatchAdmission::BatchAdmission(FormatLimits limits)
    : limits_(limits), json_(std::make_unique<JsonReader>(limits.member_bytes_max.value, limits.depth_max)) {}
BatchAdmission::~BatchAdmission() = default;

BatchAdmission::Decision BatchAdmission::decide(BatchFormat format, std::string_view body) {
    const auto refuse = [](std::string reason) {
        return Decision{.verdict = Verdict::kRefused, .reason = std::move(reason), .item = {}};
    };
    body = trim_json(body);
    if (body.size() > limits_.member_bytes_max.value) return refuse("the body is too large for a batch");
    const std::string_view text = json_->hold(body);
    const auto element = json_->parse(text);
    if (!element) return refuse("the body cannot be part of a batch: " + json_->error());

    Decision decision{.verdict = Verdict::kMember, .reason = {}, .item = {}};
    if (format == BatchFormat::kJsonRpc) {
        if (element->is_array()) return {.verdict = Verdict::kApart, .reason = {}, .item = {}};
        if (auto wrong = read_rpc_request(*element, text, decision.item)) return refuse(std::move(*wrong));
    }
    decision.item.text = text;
    if (format == BatchFormat::kNdjson && text.find_first_of("\r\n") != std::string_view::npos) {
        std::size_t size = 0;
        decision.item.text.resize(text.size() + simdjson::SIMDJSON_PADDING);  // it writes whole vectors
        const auto code = simdjson::minify(text.data(), text.size(), decision.item.text.data(), size);
        require(code == simdjson::SUCCESS, "what was parsed can be minified");
        decision.item.text.resize(size);
    }
    return decision;
}

// --- the call -------------------------------------------------------------------------------------------------

std::string batch_body(BatchFormat format, std::span<const BatchItem* const> items) {
    std::size_t size = 2;
    for (const BatchItem* item : items) {
        size += item->bytes_in_call().value;
    }
    std::string body;
    body.reserve(size);
    if (format == BatchFormat::kNdjson) {
        for (const BatchItem* item : items) {
            body.append(item->text).push_back('\n');
        }
        return body;
    }
    for (std::size_t i = 0; i < items.size(); ++i) {
        const BatchItem& item = *items[i];
        body.push_back(i == 0 ? '[' : ',');
        if (item.id_size == 0) {
            body.append(item.text);
            continue;
        }
        body.append(item.text, 0, item.id_begin);
        body.append(std::to_string(i + 1));
        body.append(item.text, item.id_begin + item.id_size);
    }
    if (items.empty()) body.push_back('[');
    body.push_back(']');
    return body;
}

std::string_view batch_content_type(BatchFormat format) {
    return format == BatchFormat::kNdjson ? "application/x-ndjson" : "application/json";
}

// --- the answer -----------------------------------------------------------------------------------------------

BatchSplitter::BatchSplitter(FormatLimits limits)
    : limits_(limits), json_(std::make_unique<JsonReader>(limits.answer_bytes_max.value, limits.depth_max)) {}
BatchSplitter::~BatchSplitter() = default;

std::string BatchSplitter::Part::joined() const {
    std::string out;
    for (const std::string_view piece : body) {
        out.append(piece);
    }
    return out;
}

Result<BatchSplitter::Parts> BatchSplitter::split(BatchFormat format, bool envelope,
                                                  std::span<const BatchItem* const> items,
                                                  std::string_view answer) {
    if (answer.size() > limits_.answer_bytes_max.value) return Error{"the batch's answer is too large"};
    switch (format) {
        case BatchFormat::kJsonArray:
            return split_array(json_->hold(trim_json(answer)), envelope, items.size());
        case BatchFormat::kNdjson:
            return split_lines(json_->hold(answer), envelope, items.size());
        case BatchFormat::kJsonRpc:
            return split_rpc(json_->hold(trim_json(answer)), items);
    }
    return Error{"the batch has no format"};
}

Result<BatchSplitter::Parts> BatchSplitter::split_array(std::string_view held, bool envelope,
                                                        std::size_t items) {
    const auto element = json_->parse(held);
    if (!element) return Error{"the batch's answer cannot be read: " + json_->error()};
    dom::array array;
    if (element->get(array) != simdjson::SUCCESS) return Error{"the batch's answer is not an array"};
    Parts parts;
    JsonSlices slices(held);
    std::size_t count = 0;
    for (const dom::element child : array) {
        if (++count <= items) parts.parts.push_back(read_element(envelope, child, slices.next()));
    }
    if (count != items) return wrong_count(count, items, "elements");
    return parts;
}

Result<BatchSplitter::Parts> BatchSplitter::split_lines(std::string_view held, bool envelope,
                                                        std::size_t items) {
    if (!simdjson::validate_utf8(held.data(), held.size()))
        return Error{"the batch's answer cannot be read: it is not UTF-8"};
    if (!held.empty() && held.back() == '\n') held.remove_suffix(1);  // the end of the last line
    const auto breaks = static_cast<std::size_t>(std::count(held.begin(), held.end(), '\n'));
    const std::size_t count = held.empty() ? 0 : breaks + 1;
    if (count != items) return wrong_count(count, items, "lines");
    Parts parts;
    while (parts.parts.size() < count) {
        const std::size_t end = std::min(held.find('\n'), held.size());
        const std::string_view line = trim_json(held.substr(0, end));
        held.remove_prefix(std::min(end + 1, held.size()));
        if (const auto element = json_->parse(line)) {
            parts.parts.push_back(read_element(envelope, *element, line));
        } else {
            parts.parts.push_back(
                failed_part("its line of the batch's answer cannot be read: " + json_->error()));
        }
    }
    return parts;
}

Result<BatchSplitter::Parts> BatchSplitter::split_rpc(std::string_view held,
                                                      std::span<const BatchItem* const> items) {
    Parts parts;
    parts.parts.resize(items.size());
    std::vector<std::uint8_t> answers(items.size());
    const bool none_expected =
        std::all_of(items.begin(), items.end(), [](const BatchItem* item) { return item->notification; });
    if (!held.empty() || !none_expected) {
        const auto element = json_->parse(held);
        if (!element) return Error{"the batch's answer cannot be read: " + json_->error()};
        dom::array array;
        if (element->get(array) != simdjson::SUCCESS) return Error{"the batch's answer is not an array"};
        JsonSlices slices(held);
        for (const dom::element child : array) {
            const auto answered = take_response(child, slices.next(), items, parts.parts);
            if (answered) {
                answers[*answered] = static_cast<std::uint8_t>(std::min(answers[*answered] + 1, 2));
            } else {
                ++parts.strays;
            }
        }
    }
    for (std::size_t i = 0; i < items.size(); ++i) {
        if (items[i]->notification) {
            parts.parts[i].status = 204;
        } else if (answers[i] == 0) {
            parts.parts[i] = failed_part("the batch's answer holds no response with its id");
        } else if (answers[i] > 1) {
            parts.parts[i] = failed_part("the batch's answer holds more than one response with its id");
        }
    }
    return parts;
}

}  // namespace outrider::policy
