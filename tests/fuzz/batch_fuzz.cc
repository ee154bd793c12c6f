// Any bytes as members of a batch and as its answer.
//
// Held here: what is admitted is one value that others cannot be spoilt by: put into a call between two others, the call
// comes apart as it went together. What an answer is split into are parts of it, in its order (JSON-RPC: with the ids
// put back), one for each member, each one JSON value again. Nothing is read outside of the input.
//
// The first byte: bits 0 and 1 the format, bit 2 the envelope, bits 3 to 5 the number of members. Then the member up to
// the first zero byte, and the answer behind it.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/check.h"
#include "filters/policy/batch_format.h"

namespace {
using namespace outrider;
using namespace outrider::policy;
using Verdict = BatchAdmission::Verdict;

constexpr FormatLimits kLimits{.depth_max = 32, .member_bytes_max = {1 << 16}, .answer_bytes_max = {1 << 17}};

BatchItem known(BatchFormat format, BatchAdmission& admission) {
    const std::string_view body =
        format == BatchFormat::kJsonRpc ? R"({"jsonrpc":"2.0","method":"m","id":"x"})" : R"({"a":[1]})";
    return admission.decide(format, body).item;
}

void check_member(BatchFormat format, std::string_view body, BatchAdmission& admission,
                  BatchSplitter& splitter) {
    const auto decision = admission.decide(format, body);
    require((decision.verdict == Verdict::kRefused) == !decision.reason.empty(), "a refusal has a reason");
    if (decision.verdict != Verdict::kMember) return;
    const BatchItem& item = decision.item;
    if (format == BatchFormat::kNdjson)
        require(item.text.find_first_of("\r\n") == std::string::npos, "a line is one line");
    const auto again = admission.decide(format, item.text);
    require(again.verdict == Verdict::kMember && again.item.text == item.text, "a member stays one");

    const BatchItem other = known(format, admission);
    const std::vector<const BatchItem*> items{&other, &item, &other};
    const std::string call = batch_body(format, items);
    const auto parts = splitter.split(format, false, items, call);  // as if an application echoed it
    require(parts.ok() && parts->parts.size() == 3, "a call comes apart");
    require(parts->parts[0].joined() == other.text && parts->parts[2].joined() == other.text,
            "a member leaves the others as they are");
    if (item.notification) {
        require(parts->parts[1].status == 204 && parts->parts[1].joined().empty(),
                "a notification has no answer");
    } else {
        require(parts->parts[1].joined() == item.text, "a member comes out as it went in");
    }
}

void check_answer(BatchFormat format, bool envelope, std::size_t members, std::string_view answer,
                  BatchAdmission& admission, BatchSplitter& splitter) {
    const BatchItem item = known(format, admission);
    const std::vector<const BatchItem*> items(members, &item);
    const auto parts = splitter.split(format, envelope, items, answer);
    if (!parts) {
        require(!parts.error().empty(), "a failure has a sentence");
        return;
    }
    require(parts->parts.size() == members, "each member has its part");
    BatchAdmission check({.depth_max = 33, .member_bytes_max = {1 << 17}, .answer_bytes_max = {1 << 17}});
    std::size_t from = 0;
    for (const auto& part : parts->parts) {
        if (!part.error.empty()) continue;
        require(part.status >= 200 && part.status <= 599, "a part has a final status");
        const std::string body = part.joined();
        if (body.empty()) continue;
        require(check.decide(BatchFormat::kJsonArray, body).verdict == Verdict::kMember,
                "a part is one JSON value");
        if (format == BatchFormat::kJsonRpc) continue;
        const std::size_t at = answer.find(body, from);
        require(at != std::string_view::npos, "the parts stand in the answer, in order");
        from = at + body.size();
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size == 0) return 0;
    const std::uint8_t how = data[0];
    const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
    const auto format = static_cast<BatchFormat>((how & 3) % 3);
    const bool envelope = (how & 4) != 0 && format != BatchFormat::kJsonRpc;
    const std::size_t zero = std::min(text.find('\0'), text.size());

    BatchAdmission admission(kLimits);
    BatchSplitter splitter(kLimits);
    check_member(format, text.substr(0, zero), admission, splitter);
    check_answer(format, envelope, (how >> 3) & 7, text.substr(std::min(zero + 1, text.size())), admission,
                 splitter);
    return 0;
}
