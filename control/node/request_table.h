// The requests that wait at a node, by number. Pure.
//
// Invariants
//   * Numbers rise and are never used again.
//   * What waits is bounded in number and in bytes of commands: full() says when no more is taken.
//   * Deadlines are in the order of the numbers, since every request has the same time.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/time.h"
#include "control/node/request.h"
#include "control/raft/effects.h"
#include "control/raft/types.h"

namespace outrider::node {

class RequestTable {
  public:
    struct Limits {
        std::size_t requests_max = 100'000;
        std::uint64_t bytes_max = std::uint64_t{256} << 20;
    };
    enum class Kind : std::uint8_t { kCommand, kRead, kLease, kMembers };
    struct Entry {
        Request* request = nullptr;
        Kind kind = Kind::kRead;
        bool sent = false;                        // it may be in a log, or on its way there
        raft::Term term;                          // in which it was sent
        raft::LogIndex index;                     // kMembers: of the change, once known
        store::Command command;                   // kCommand, kept so that it need not be decoded at apply
        std::shared_ptr<const std::string> data;  // kCommand, encoded
        store::LeaseId lease;                     // kLease
        bool renew = false;
        raft::ChangeMembership change;  // kMembers
    };

    RequestTable() : RequestTable(Limits()) {}
    explicit RequestTable(Limits limits) : limits_(limits) {}

    bool full() const { return entries_.size() >= limits_.requests_max || bytes_ >= limits_.bytes_max; }
    std::size_t size() const { return entries_.size(); }
    std::uint64_t bytes() const { return bytes_; }

    std::uint64_t add(Entry entry, Instant deadline) {
        const std::uint64_t sequence = ++last_;
        entry.request->sequence_ = sequence;
        if (entry.data != nullptr) bytes_ += entry.data->size();
        ++kind_counts_[static_cast<std::size_t>(entry.kind)];
        entries_.emplace(sequence, std::move(entry));
        deadlines_.emplace_back(deadline, sequence);
        return sequence;
    }
    Entry* find(std::uint64_t sequence) {
        const auto it = entries_.find(sequence);
        return it == entries_.end() ? nullptr : &it->second;
    }
    // The request does not wait any more.
    std::optional<Entry> take(std::uint64_t sequence) {
        const auto it = entries_.find(sequence);
        if (it == entries_.end()) return std::nullopt;
        Entry entry = std::move(it->second);
        entries_.erase(it);
        if (entry.data != nullptr) bytes_ -= entry.data->size();
        --kind_counts_[static_cast<std::size_t>(entry.kind)];
        entry.request->sequence_ = 0;
        return entry;
    }
    void forget(Request& request) {
        if (request.sequence_ != 0) take(request.sequence_);
    }

    // The next deadline; those of requests that are gone are passed over.
    std::optional<Instant> next_deadline() {
        while (!deadlines_.empty() && !entries_.contains(deadlines_.front().second))
            deadlines_.pop_front();
        if (deadlines_.empty()) return std::nullopt;
        return deadlines_.front().first;
    }
    // Those whose time is over, in order; they still wait.
    std::vector<std::uint64_t> overdue(Instant now) const {
        std::vector<std::uint64_t> out;
        for (const auto& [deadline, sequence] : deadlines_) {
            if (deadline > now) break;
            if (entries_.contains(sequence)) out.push_back(sequence);
        }
        return out;
    }
    // Sent to a leader of a term before this one.
    std::vector<std::uint64_t> sent_before(raft::Term term) const {
        std::vector<std::uint64_t> out;
        for (const auto& [sequence, entry] : entries_) {
            if (entry.sent && entry.term < term) out.push_back(sequence);
        }
        return out;
    }
    std::vector<std::uint64_t> of_kind(Kind kind) const {
        std::vector<std::uint64_t> out;
        if (kind_counts_[static_cast<std::size_t>(kind)] == 0) return out;
        for (const auto& [sequence, entry] : entries_) {
            if (entry.kind == kind) out.push_back(sequence);
        }
        return out;
    }
    std::vector<std::uint64_t> all() const {
        std::vector<std::uint64_t> out;
        for (const auto& [sequence, entry] : entries_)
            out.push_back(sequence);
        return out;
    }

  private:
    const Limits limits_;
    std::uint64_t last_ = 0;
    std::uint64_t bytes_ = 0;
    std::array<std::size_t, 4> kind_counts_{};
    std::unordered_map<std::uint64_t, Entry> entries_;
    std::deque<std::pair<Instant, std::uint64_t>> deadlines_;
};

}  // namespace outrider::node
