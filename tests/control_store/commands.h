// Short ways to write commands, and a store's whole snapshot as a string.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "control/store/snapshot.h"
#include "control/store/store.h"

namespace outrider::store::test {

template <typename Request>
Command command(Request request) {
    Command c;
    c.request = std::move(request);
    return c;
}

inline PutRequest put(std::string key, std::string value, std::int64_t lease = 0) {
    PutRequest p;
    p.key = std::move(key);
    p.value = std::move(value);
    p.lease = {lease};
    return p;
}

inline DeleteRequest erase(std::string key, std::string end = {}) {
    DeleteRequest d;
    d.range = {std::move(key), std::move(end)};
    return d;
}

inline RangeRequest get(std::string key, std::string end = {}, std::int64_t revision = 0) {
    RangeRequest r;
    r.range = {std::move(key), std::move(end)};
    r.revision = {revision};
    return r;
}

inline const std::string kAll("\0", 1);

// A store and the index of its log.
struct Driver {
    std::unique_ptr<Store> store = std::make_unique<Store>();
    std::uint64_t index = 0;

    template <typename Request>
    Store::Applied operator()(Request request) {
        return store->apply(++index, command(std::move(request)));
    }
    Store::Applied run(Command c) { return store->apply(++index, c); }
};

inline std::string snapshot(Store& store) {
    SnapshotWriter writer(store);
    std::string bytes;
    while (writer.next(bytes)) {
    }
    return bytes;
}

inline std::unique_ptr<Store> restore(const std::string& bytes, std::size_t piece = SIZE_MAX) {
    SnapshotReader reader;
    for (std::size_t at = 0; at < bytes.size();) {
        const std::size_t size = std::min(piece, bytes.size() - at);
        if (!reader.add(std::string_view(bytes).substr(at, size))) return nullptr;
        at += size;
    }
    auto store = reader.finish();
    return store ? std::move(*store) : nullptr;
}

// Lets a test do to it what a broken disk does.
class Shown final : public ColdMemory {
  public:
    std::span<char> take(std::size_t bytes) override {
        return blocks.emplace_back(heap_memory()->take(bytes));
    }
    void give_back(std::span<char> block) override { heap_memory()->give_back(block); }
    void cool(std::span<char>) override {}
    std::vector<std::span<char>> blocks;
};

}  // namespace outrider::store::test
