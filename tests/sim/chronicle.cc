#include "tests/sim/chronicle.h"

#include <algorithm>

#include <xxhash.h>

#include "base/random.h"
#include "control/store/sessions.h"
#include "control/store/snapshot.h"

namespace outrider::sim {
namespace {

constexpr std::uint64_t kStateEvery = 64;

std::uint64_t digest(std::string_view bytes, std::uint64_t seed) {
    return XXH3_64bits_withSeed(bytes.data(), bytes.size(), seed);
}

std::uint64_t digest(const store::Store::Applied& applied) {
    const store::Response& response = applied.response;
    std::uint64_t sum =
        mix64(static_cast<std::uint64_t>(response.revision.value) * 64 +
              static_cast<std::uint64_t>(response.status) + (applied.repeated ? 1U << 30 : 0U));
    sum = digest(store::encode_answer(response), sum);
    for (const store::Record* record : applied.events) {
        const store::Record::Fields f = record->fields();
        sum = digest(f.value, digest(f.key, sum + f.sub * 2 + (f.tombstone ? 1 : 0)));
        sum =
            mix64(sum + static_cast<std::uint64_t>(f.mod.value + f.version + f.create.value + f.lease.value));
    }
    return sum | 1;
}

std::uint64_t digest(store::Store& store) {
    store::SnapshotWriter writer(store);
    std::string bytes;
    while (writer.next(bytes)) {
    }
    return digest(bytes, 0) | 1;
}

}  // namespace

void Chronicle::applied(std::uint32_t node, std::uint64_t index, const store::Command& command,
                        const store::Store::Applied& applied, store::Store& store) {
    if (seen_.size() <= index) seen_.resize(index + 64);
    const std::uint64_t now = digest(applied);
    if (seen_[index] == 0) {
        seen_[index] = now;
        first(command, applied, store);
    } else if (seen_[index] != now) {
        broken("node " + std::to_string(node) + " applied entry " + std::to_string(index) +
               " with another outcome than the first node");
    }
    if (index % kStateEvery == 0) compare_state(node, index, store);
}

void Chronicle::restored(std::uint32_t node, store::Store& store) {
    if (store.applied_index() % kStateEvery == 0) compare_state(node, store.applied_index(), store);
}

void Chronicle::compare_state(std::uint32_t node, std::uint64_t index, store::Store& store) {
    const std::uint64_t place = index / kStateEvery;
    if (states_.size() <= place) states_.resize(place + 64);
    const std::uint64_t now = digest(store);
    if (states_[place] == 0) states_[place] = now;
    if (states_[place] != now) {
        broken("node " + std::to_string(node) + " has another state after entry " + std::to_string(index) +
               " than the first node");
    }
}

void Chronicle::first(const store::Command& command, const store::Store::Applied& applied,
                      store::Store& store) {
    if (command.session.value != 0 && !applied.repeated &&
        applied.response.status != store::Status::kSessionUnknown &&
        !effective_.emplace(command.session.value, command.sequence).second) {
        broken("command " + std::to_string(command.sequence) + " of session " +
               std::to_string(command.session.value) + " took effect twice");
    }
    for (const store::Record* record : applied.events) {
        Change change{record->key_value(), record->fields().sub};
        if (change.kv.mod_revision != revision_ + 1) broken("a change has not the next revision");
        keys_[change.kv.key].push_back(changes_.size());
        changes_.push_back(std::move(change));
    }
    if (!applied.events.empty()) revision_ = revision_ + 1;
    if (store.revision() != revision_) broken("the revision does not rise with the changes, one by one");
    compacted_ = std::max(compacted_, store.compacted());
}

std::span<const Chronicle::Change> Chronicle::changes(store::Revision revision) const {
    const auto below = [](const Change& change, store::Revision r) { return change.kv.mod_revision < r; };
    const auto begin = std::lower_bound(changes_.begin(), changes_.end(), revision, below);
    const auto end = std::lower_bound(begin, changes_.end(), revision + 1, below);
    return {begin, end};
}

const store::KeyValue* Chronicle::at(const std::string& key, store::Revision revision) const {
    const auto places = keys_.find(key);
    if (places == keys_.end()) return nullptr;
    const auto above = [this](store::Revision r, std::size_t place) {
        return r < changes_[place].kv.mod_revision;
    };
    const auto it = std::upper_bound(places->second.begin(), places->second.end(), revision, above);
    if (it == places->second.begin()) return nullptr;
    const store::KeyValue& kv = changes_[*std::prev(it)].kv;
    return kv.version == 0 ? nullptr : &kv;
}

std::vector<store::KeyValue> Chronicle::range(const store::KeyRange& range, store::Revision revision) const {
    std::vector<store::KeyValue> found;
    for (auto it = keys_.lower_bound(range.key); it != keys_.end() && range.contains(it->first); ++it) {
        if (const store::KeyValue* kv = at(it->first, revision)) found.push_back(*kv);
    }
    return found;
}

}  // namespace outrider::sim
