// Any bytes as what a member of the quorum sends to the coordination client: the lines of a watch's stream.
//
// Held here: the reader keeps no more than its bound and yields the same lines however the bytes are cut; whatever the lines
// say, the cursor delivers events of the watched range only, in order, none twice, and asks for what is behind them.
//
// The first byte says where the bytes are cut.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/check.h"
#include "control/agent/stream_reader.h"
#include "control/agent/watch_cursor.h"
#include "control/agent/wire.h"

namespace {
using namespace outrider;
using namespace outrider::agent;

constexpr std::size_t kLineMax = 4096;

std::vector<std::string> lines_of(std::string_view bytes, std::size_t piece) {
    StreamReader reader(kLineMax);
    std::vector<std::string> lines;
    while (!bytes.empty()) {
        const std::string_view part = bytes.substr(0, piece);
        bytes.remove_prefix(part.size());
        reader.add(part);
        for (auto line = reader.next(); line.ok() && *line; line = reader.next())
            lines.emplace_back(**line);
        require(reader.kept() <= kLineMax + 1, "the reader keeps at most a line");
    }
    return lines;
}

struct Checker {
    std::int64_t seen = 0;
    void operator()(const WatchUpdate& update) {
        if (update.kind == WatchUpdate::Kind::kProgress) return;
        require(update.kind == WatchUpdate::Kind::kEvents, "a stream delivers events and progress");
        require(!update.events.empty(), "an update has events");
        std::int64_t last = seen + 1;
        for (const v3::Event& event : update.events) {
            require(event.kv().key() >= "a" && event.kv().key() < "b", "an event is of the watched range");
            require(event.kv().mod_revision() >= last, "events come in order, once");
            last = event.kv().mod_revision();
        }
        require(last == update.revision.value, "an update is up to its last event");
        seen = last;
    }
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size == 0) return 0;
    const std::string_view bytes(reinterpret_cast<const char*>(data + 1), size - 1);
    const std::vector<std::string> lines = lines_of(bytes, 1 + data[0]);
    require(lines == lines_of(bytes, size), "lines do not depend on how the bytes are cut");

    WatchCursor::Options options;
    options.range = {"a", "b"};
    options.first = WatchCursor::First::kRevision;
    options.revision = {2};
    options.state_bytes_max = 64 * 1024;
    WatchCursor cursor(options);
    Checker checker{1};
    for (const std::string& line : lines) {
        v3::WatchLine message;
        if (!from_json(line, message) || !message.has_result()) continue;
        if (!cursor.on_message(message.result(), [&](const WatchUpdate& u) { checker(u); }).ok()) {
            cursor.on_disconnected();
            break;
        }
        require(cursor.seen().value == checker.seen, "the place is behind what was delivered");
        if (cursor.want() != WatchCursor::Want::kWatch) break;
    }
    (void)refusal_from(500, bytes);
    return 0;
}
