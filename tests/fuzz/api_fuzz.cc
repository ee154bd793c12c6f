// Any bytes as the JSON body of a call of the quorum's API.
//
// Held here: a body is parsed or refused with a status of 4xx and JSON; cut into messages it never yields more than went
// in; what was parsed and may be proposed comes back from its bytes in the log, and the store applies it without
// breaking: its snapshot restores to the same bytes.
//
// The first byte chooses the call.
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <variant>

#include "base/check.h"
#include "control/api/command.h"
#include "control/api/requests.h"
#include "control/api/responses.h"
#include "control/store/snapshot.h"

namespace {
using namespace outrider;

std::string snapshot_of(store::Store& store) {
    store::SnapshotWriter writer(store);
    std::string bytes;
    while (writer.next(bytes)) {
    }
    return bytes;
}

void apply(const store::Command& command, api::Call call) {
    store::Limits limits;
    limits.store_bytes_max = 1 << 20;
    const std::string bytes = api::encode_command(command);
    const auto decoded = api::decode_command(bytes);
    require(decoded.ok(), "a command comes back from its bytes");
    require(api::encode_command(*decoded) == bytes, "a command is written again as the same bytes");

    store::Store store;
    store::Command seed;
    seed.request = store::PutRequest{"a", "1", {}, false, false, false};
    store.apply(1, seed);
    if (store.admit(*decoded, limits) != store::Status::kOk) return;
    const auto applied = store.apply(2, *decoded);
    const api::Answer answer = api::Responder({1, 2, 3}).command(call, applied.response);
    require(!answer.body.empty(), "every command is answered");
    const std::string snapshot = snapshot_of(store);
    store::SnapshotReader reader;
    require(reader.add(snapshot).ok(), "a snapshot of ours is read");
    auto restored = reader.finish();
    require(restored.ok(), "a snapshot of ours is whole");
    require(snapshot_of(**restored) == snapshot, "a restored store has the same snapshot");
}

struct Propose {
    api::Call call;
    template <typename R>
    void operator()(const R& request) const {
        if constexpr (std::is_same_v<R, store::RangeRequest>) {
            const store::Store store;
            const auto result = store.range(request, {});
            require(result.status != store::Status::kOk || result.response.kvs.empty(),
                    "nothing is in an empty store");
        } else if constexpr (std::is_constructible_v<decltype(store::Command::request), R>) {
            store::Command command;
            command.request = request;
            apply(command, call);
        }
    }
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size == 0) return 0;
    const auto call = static_cast<api::Call>(data[0] % (static_cast<int>(api::Call::kSessionClose) + 1));
    const std::unique_ptr<char[]> exact(new char[size]);  // the sanitizer guards its ends
    for (std::size_t i = 1; i < size; ++i)
        exact[i - 1] = static_cast<char>(data[i]);
    const std::string_view body(exact.get(), size - 1);

    const auto parsed = api::parse_request(call, body);
    if (const auto* refused = std::get_if<api::Answer>(&parsed)) {
        require(refused->status >= 400 && refused->status < 500,
                "a body that is refused is the client's fault");
        require(refused->body.substr(0, 10) == "{\"error\":\"", "a refusal is JSON");
    } else {
        std::visit(Propose{call}, std::get<api::Request>(parsed));
    }

    api::MessageSplitter splitter;
    splitter.add(body);
    std::size_t total = 0;
    for (auto next = splitter.next(); next.ok() && *next; next = splitter.next())
        total += (*next)->size();
    require(total <= body.size(), "messages are parts of the body");
    return 0;
}
