#include "tests/sim/append_lists.h"

#include <cstring>
#include <map>
#include <string_view>

#include "base/check.h"

namespace outrider::sim {
namespace {

using Words = std::vector<std::uint64_t>;

std::string pack(const Words& words) {
    std::string out(words.size() * sizeof(std::uint64_t), '\0');
    std::memcpy(out.data(), words.data(), out.size());
    return out;
}

std::uint64_t word(std::string_view bytes, std::size_t place) {
    std::uint64_t value = 0;
    require(bytes.size() >= (place + 1) * sizeof(value), "the bytes hold that many words");
    std::memcpy(&value, bytes.data() + place * sizeof(value), sizeof(value));
    return value;
}

struct List {
    std::uint64_t length = 0;
    std::uint64_t hash = 0;
};

class Machine : public raft::StateMachine {
  public:
    std::string apply(const raft::Entry& entry) override {
        Session& session = sessions_[entry.command.client];
        // A command that comes again gets its first result; an older one nobody waits for.
        if (entry.command.sequence <= session.sequence) return session.result;
        List& list = lists_[word(*entry.command.data, 0)];
        ++list.length;
        list.hash = mix64(list.hash * 31 + word(*entry.command.data, 1));
        session = {entry.command.sequence, pack({list.length, list.hash})};
        return session.result;
    }

    std::string query(std::string_view question) const override {
        const List& list = lists_[word(question, 0)];
        return pack({list.length, list.hash});
    }

    std::string snapshot() const override {
        Words words;
        for (const List& list : lists_) {
            words.insert(words.end(), {list.length, list.hash});
        }
        for (const auto& [client, session] : sessions_) {
            words.insert(words.end(),
                         {client, session.sequence, word(session.result, 0), word(session.result, 1)});
        }
        return pack(words);
    }

    void restore(std::string_view snapshot) override {
        std::size_t at = 0;
        for (List& list : lists_) {
            list = {word(snapshot, at), word(snapshot, at + 1)};
            at += 2;
        }
        sessions_.clear();
        for (; at * sizeof(std::uint64_t) < snapshot.size(); at += 4) {
            sessions_[word(snapshot, at)] = {word(snapshot, at + 1),
                                             pack({word(snapshot, at + 2), word(snapshot, at + 3)})};
        }
    }

  private:
    struct Session {
        std::uint64_t sequence = 0;
        std::string result = pack({0, 0});
    };
    std::array<List, AppendLists::kKeys> lists_;
    std::map<std::uint64_t, Session> sessions_;
};

}  // namespace

std::unique_ptr<raft::StateMachine> AppendLists::machine() {
    return std::make_unique<Machine>();
}

AppendLists::Operation AppendLists::begin(std::uint64_t client, Random& random) {
    const std::uint64_t key = random.below(kKeys);
    const bool write = random.below(100) >= read_percent_;
    running_[client] = {write, key, keys_[key].ended};
    return {write, write ? pack({key, ++values_}) : pack({key})};
}

void AppendLists::end(std::uint64_t client, const std::string& result) {
    const Running operation = running_.at(client);
    running_.erase(client);
    Key& key = keys_[operation.key];
    const std::uint64_t at = word(result, 0);
    if (operation.write ? at <= operation.floor : at < operation.floor) {
        broken(operation, at,
               "though place " + std::to_string(operation.floor) + " was known before it began");
    }
    if (at > values_) {
        broken(operation, at, "which is more than was ever appended");
        return;
    }
    if (key.places.size() <= at) key.places.resize(at + 1);
    Place& place = key.places[at];
    if (place.hash != 0 && place.hash != word(result, 1))
        broken(operation, at, "with another content than before");
    if (operation.write && place.appended) broken(operation, at, "which another append has");
    place.hash = word(result, 1);
    place.appended = place.appended || operation.write;
    key.ended = std::max(key.ended, at);
}

void AppendLists::broken(const Running& operation, std::uint64_t place, const std::string& what) {
    if (violation_) return;
    violation_ = std::string("not linearizable: ") + (operation.write ? "an append to" : "a read of") +
                 " key " + std::to_string(operation.key) + " got place " + std::to_string(place) + " " + what;
}

}  // namespace outrider::sim
