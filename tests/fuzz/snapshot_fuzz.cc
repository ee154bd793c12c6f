// Any bytes as a snapshot of the key space.
//
// Held here: it is refused with a reason, or makes a store that works: its own snapshot restores to the same
// bytes, and puts, deletions and a compaction of everything leave it whole.
//
// The first byte: 0: the bytes are a snapshot as they are; else they are payloads, each behind a length of two bytes,
// and the frames around them are made right, so that what lies behind the checks is reached.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include <xxhash.h>

#include "base/check.h"
#include "control/store/snapshot.h"

namespace {
using namespace outrider;
using namespace outrider::store;

void put_little(std::string& out, std::uint64_t value, int bytes) {
    for (int i = 0; i < bytes; ++i)
        out.push_back(static_cast<char>(value >> (8 * i)));
}

std::string framed(std::string_view input) {
    std::string out;
    std::uint64_t check = 0;
    for (std::uint32_t ordinal = 0; input.size() >= 2; ++ordinal) {
        const std::size_t want = static_cast<unsigned char>(input[0]) | static_cast<unsigned char>(input[1])
                                                                            << 8;
        input.remove_prefix(2);
        const std::string_view payload = input.substr(0, want);
        input.remove_prefix(payload.size());
        check = XXH3_64bits_withSeed(payload.data(), payload.size(), check + ordinal);
        put_little(out, payload.size(), 4);
        put_little(out, ordinal, 4);
        put_little(out, check, 8);
        out.append(payload);
    }
    return out;
}

std::string snapshot_of(Store& store) {
    SnapshotWriter writer(store);
    std::string bytes;
    while (writer.next(bytes)) {
    }
    return bytes;
}

std::unique_ptr<Store> restore(std::string_view bytes) {
    SnapshotReader reader;
    for (std::size_t at = 0; at < bytes.size(); at += 1000) {
        if (const auto added = reader.add(bytes.substr(at, 1000)); !added) {
            require(!added.error().empty(), "a refusal has a reason");
            return nullptr;
        }
    }
    auto store = reader.finish();
    return store ? std::move(*store) : nullptr;
}

void use(Store& store) {
    if (store.applied_index() > UINT64_MAX - 9) return;
    std::uint64_t index = store.applied_index();
    const auto run = [&](auto request) {
        Command command;
        command.request = std::move(request);
        store.apply(++index, command);
    };
    if (store.revision().value > INT64_MAX - 9) return;
    run(PutRequest{"k", "v", {}, true, false, false});
    run(DeleteRequest{{std::string(1, '\0'), std::string(1, '\0')}, true});
    for (const auto& [id, lease] : store.leases().all()) {
        run(LeaseRevokeRequest{id, false});
        break;
    }
    run(PutRequest{"k", "v", {}, true, false, false});
    run(CompactRequest{store.revision()});
    require(store.key_count() == 1 && store.record_count() == 1, "one key is left of all");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size == 0) return 0;
    const std::string_view input(reinterpret_cast<const char*>(data) + 1, size - 1);
    const auto store = restore(data[0] == 0 ? std::string(input) : framed(input));
    if (store == nullptr) return 0;
    const std::string bytes = snapshot_of(*store);
    const auto again = restore(bytes);
    require(again != nullptr, "a snapshot of ours is read");
    require(snapshot_of(*again) == bytes, "a restored store has the same snapshot");
    require(again->hash(again->revision()) == store->hash(store->revision()),
            "a restored store has the same hash");
    use(*store);
    return 0;
}
