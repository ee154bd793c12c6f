#include "base/http/message.h"

#include <cstring>

#include "base/bytes.h"

namespace outrider::http {

FieldId field_id(std::string_view name) {
    const auto is = [name](std::string_view known) { return iequals(name, known); };
    switch (name.size()) {
        case 2: return is("te") ? FieldId::kTe : FieldId::kOther;
        case 3: return is("via") ? FieldId::kVia : FieldId::kOther;
        case 4:
            if (is("host")) return FieldId::kHost;
            return is("date") ? FieldId::kDate : FieldId::kOther;
        case 6:
            if (is("accept")) return FieldId::kAccept;
            if (is("cookie")) return FieldId::kCookie;
            return is("expect") ? FieldId::kExpect : FieldId::kOther;
        case 7:
            if (is("upgrade")) return FieldId::kUpgrade;
            return is("trailer") ? FieldId::kTrailer : FieldId::kOther;
        case 10:
            if (is("connection")) return FieldId::kConnection;
            if (is("keep-alive")) return FieldId::kKeepAlive;
            if (is("tracestate")) return FieldId::kTracestate;
            break;
        case 11: if (is("traceparent")) return FieldId::kTraceparent; break;
        case 12:
            if (is("content-type")) return FieldId::kContentType;
            if (is("x-request-id")) return FieldId::kXRequestId;
            break;
        case 14: if (is("content-length")) return FieldId::kContentLength; break;
        case 15: if (is("x-forwarded-for")) return FieldId::kXForwardedFor; break;
        case 16:
            if (is("x-forwarded-host")) return FieldId::kXForwardedHost;
            if (is("proxy-connection")) return FieldId::kProxyConnection;
            break;
        case 17:
            if (is("transfer-encoding")) return FieldId::kTransferEncoding;
            if (is("x-forwarded-proto")) return FieldId::kXForwardedProto;
            break;
        default: break;
    }
    if (name.size() > 9 && (name[0] | 0x20) == 'o' && iequals(name.substr(0, 9), "outrider-")) {
        return FieldId::kOutrider;
    }
    return FieldId::kOther;
}

FieldRef* Head::find(FieldId id) const {
    for (FieldRef& f : all()) {
        if (f.id == id && !f.dropped) return &f;
    }
    return nullptr;
}

FieldRef* Head::find(std::string_view wanted) const {
    for (FieldRef& f : all()) {
        if (f.name_size == wanted.size() && !f.dropped && iequals(name(f), wanted)) return &f;
    }
    return nullptr;
}

std::string_view Head::value_of(FieldId id) const {
    const FieldRef* f = find(id);
    return f != nullptr ? value(*f) : std::string_view();
}

std::string_view Head::value_of(std::string_view wanted) const {
    const FieldRef* f = find(wanted);
    return f != nullptr ? value(*f) : std::string_view();
}

std::string_view RequestHead::path_and_query() const {
    return path_total == 0 ? std::string_view("/") : at(path_begin, path_total);
}

std::string_view RequestHead::query() const {
    const std::string_view all = path_and_query();
    return path_size < all.size() ? all.substr(path_size + 1) : std::string_view();
}

void HeadStorage::keep(Head& head) {
    const std::size_t fields_size = head.field_count * sizeof(FieldRef);
    const std::size_t needed = fields_size + head.bytes_size;
    if (needed > capacity_) {
        capacity_ = needed < 768 ? 768 : needed;
        block_ = std::make_unique_for_overwrite<char[]>(capacity_);
    }
    if (fields_size != 0) std::memcpy(block_.get(), head.fields, fields_size);
    if (head.bytes_size != 0) std::memcpy(block_.get() + fields_size, head.bytes, head.bytes_size);
    head.fields = reinterpret_cast<FieldRef*>(block_.get());
    head.bytes = block_.get() + fields_size;
}

void HeadStorage::clear_if_larger_than(std::size_t bytes_max) {
    if (capacity_ <= bytes_max) return;
    block_.reset();
    capacity_ = 0;
}

std::string_view reason_phrase(int status) {
    switch (status) {
        case 100: return "Continue";
        case 101: return "Switching Protocols";
        case 103: return "Early Hints";
        case 200: return "OK";
        case 201: return "Created";
        case 202: return "Accepted";
        case 204: return "No Content";
        case 206: return "Partial Content";
        case 301: return "Moved Permanently";
        case 302: return "Found";
        case 303: return "See Other";
        case 304: return "Not Modified";
        case 307: return "Temporary Redirect";
        case 308: return "Permanent Redirect";
        case 400: return "Bad Request";
        case 401: return "Unauthorized";
        case 403: return "Forbidden";
        case 404: return "Not Found";
        case 405: return "Method Not Allowed";
        case 408: return "Request Timeout";
        case 409: return "Conflict";
        case 410: return "Gone";
        case 411: return "Length Required";
        case 412: return "Precondition Failed";
        case 413: return "Content Too Large";
        case 414: return "URI Too Long";
        case 415: return "Unsupported Media Type";
        case 417: return "Expectation Failed";
        case 421: return "Misdirected Request";
        case 422: return "Unprocessable Content";
        case 425: return "Too Early";
        case 426: return "Upgrade Required";
        case 428: return "Precondition Required";
        case 429: return "Too Many Requests";
        case 431: return "Request Header Fields Too Large";
        case 500: return "Internal Server Error";
        case 501: return "Not Implemented";
        case 502: return "Bad Gateway";
        case 503: return "Service Unavailable";
        case 504: return "Gateway Timeout";
        case 505: return "HTTP Version Not Supported";
        default: return "Unknown";
    }
}

}  // namespace outrider::http
