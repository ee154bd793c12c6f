// The body of a batch's upstream call from its members' bodies, and each member's part of the answer. Pure.
//
//   json-array   [m1,m2,…]              element i of the answer is member i's
//   ndjson       m1 LF m2 LF …          line i of the answer is member i's
//   json-rpc     [m1,m2,…] (2.0)        matched by id; the members' ids are replaced by 1, 2, … and put back
//
// A member must be exactly one JSON value: well-formed UTF-8, no byte order mark, nested at most depth_max deep, nothing
// behind it. Otherwise it is refused (400) before it can spoil the call for others. Whitespace around it goes; an
// NDJSON member that holds a line break (between tokens; inside strings JSON has none) is minified. Values are put
// together and taken apart as they were written: nothing is parsed and printed again, so no number changes its digits.
// One restriction is the parser's: a number that fits neither into 64 bits nor into a double is refused.
//
// With `envelope` an element of the answer is an object {"status": 201, "headers": {"Location": "/7"}, "body": …}:
// status 200 to 599, headers (optional) of strings or arrays of strings, body (optional) any value, passed on as JSON.
// Fields about framing and the connection are dropped, since each message is framed anew. Without `envelope` each
// element is the body of a 200.
//
// JSON-RPC 2.0 (jsonrpc.org/specification)
//   * A member is a request object: "jsonrpc": "2.0", a method, at most one id, a string, number or null. A client's own
//     array of requests is kApart: it goes upstream as it is, by itself.
//   * Ids of different clients may be equal; replacing them makes each unique in its call.
//   * A request without id is a notification and has no answer: it is part of the call, and its client gets 204 when the
//     call has succeeded. If all members are notifications, the answer may be empty.
//   * A member's error is its own (an error object with its id).
//
// What is wrong with an answer, and whom it hits
//   the whole call (split() fails): larger than answer_bytes_max; not JSON, too deep, no array (ndjson: no UTF-8);
//     json-array, ndjson: another number of elements or lines than members.
//   a member (Part::error): its line is not JSON; its element is no envelope; json-rpc: no response with its id, or more
//     than one (neither can be trusted).
//   nobody (strays, counted): json-rpc: a response with an id that was not asked (a string "1" is not 1), none, or two.
//
// The objects keep their buffers: about 15 times answer_bytes_max at worst. One of each per worker serves all routes of
// the same limits.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"
#include "base/units.h"

namespace outrider::policy {

enum class BatchFormat : std::uint8_t { kJsonArray, kNdjson, kJsonRpc };

struct FormatLimits {
    std::size_t depth_max = 64;
    Bytes member_bytes_max{1 << 20};
    Bytes answer_bytes_max{8 << 20};
};

// What a member contributes to a call.
struct BatchItem {
    std::string text;  // one JSON value
    // Of its id in the text; nothing: not JSON-RPC, or a notification.
    std::size_t id_begin = 0;
    std::size_t id_size = 0;
    bool notification = false;

    std::string_view id() const { return std::string_view(text).substr(id_begin, id_size); }
    // The most that it adds to a call's body, for BatchQueue.
    Bytes bytes_in_call() const { return {text.size() + 24}; }
};

// simdjson's parser and a buffer that it may read beyond the end of.
class JsonReader;

class BatchAdmission {
  public:
    explicit BatchAdmission(FormatLimits limits);
    ~BatchAdmission();

    enum class Verdict : std::uint8_t {
        kMember,
        kApart,    // forward it by itself, as if there were no batch
        kRefused,  // 400
    };
    struct Decision {
        Verdict verdict = Verdict::kRefused;
        std::string reason;  // a sentence, with kRefused
        BatchItem item;      // with kMember
    };
    Decision decide(BatchFormat format, std::string_view body);

  private:
    FormatLimits limits_;
    std::unique_ptr<JsonReader> json_;
};

// The call's body, and its Content-Type.
std::string batch_body(BatchFormat format, std::span<const BatchItem* const> items);
std::string_view batch_content_type(BatchFormat format);

class BatchSplitter {
  public:
    explicit BatchSplitter(FormatLimits limits);
    ~BatchSplitter();

    struct Part {
        std::string error;  // a sentence; not empty: answer 502
        int status = 200;
        // The body in up to three pieces, valid until the next split() and as long as the items live. JSON unless all
        // are empty.
        std::array<std::string_view, 3> body{};
        std::vector<std::pair<std::string, std::string>> fields;  // of an envelope
        std::string joined() const;
    };
    struct Parts {
        std::vector<Part> parts;  // in the order of the items
        std::size_t strays = 0;   // log it
    };
    // Of the body of a 2xx answer to batch_body(format, items). `envelope` is not for json-rpc, which has its own.
    // The error is a sentence about the whole call.
    Result<Parts> split(BatchFormat format, bool envelope, std::span<const BatchItem* const> items,
                        std::string_view answer);

  private:
    Result<Parts> split_array(std::string_view held, bool envelope, std::size_t items);
    Result<Parts> split_lines(std::string_view held, bool envelope, std::size_t items);
    Result<Parts> split_rpc(std::string_view held, std::span<const BatchItem* const> items);

    FormatLimits limits_;
    std::unique_ptr<JsonReader> json_;
};

}  // namespace outrider::policy
