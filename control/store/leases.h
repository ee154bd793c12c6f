// Leases and the keys attached to them. How much of a lease's time is left is known to the leader alone (lease_clock.h);
// here is what all members agree on.
//
// Invariant: a lease's keys are exactly those whose newest record is a value with this lease; the set points to that
// record.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "control/store/record.h"

namespace outrider::store {

// etcd's bounds: below, a lease could not survive an election; above, seconds would overflow as nanoseconds.
inline constexpr std::int64_t kLeaseTtlSecondsMin = 2;
inline constexpr std::int64_t kLeaseTtlSecondsMax = 9'000'000'000;
// What a lease counts for in the store's size: more than its memory, so that a list of all that fit into the default size
// (2 GiB, 29 bytes of JSON each) stays below 64 MiB.
inline constexpr std::uint64_t kLeaseCharge = 1024;

class LeaseTable {
  public:
    struct ByKey {
        bool operator()(const Record* a, const Record* b) const { return a->key() < b->key(); }
    };
    struct Lease {
        std::int64_t ttl_seconds = 0;
        std::uint64_t granted = 0;  // the index in the log of the grant: ids come again, this does not
        std::set<const Record*, ByKey> keys;
    };

    const std::map<LeaseId, Lease>& all() const { return leases_; }
    const Lease* find(LeaseId id) const {
        const auto it = leases_.find(id);
        return it == leases_.end() ? nullptr : &it->second;
    }
    bool contains(LeaseId id) const { return leases_.contains(id); }
    std::vector<std::string> keys(LeaseId id) const {
        std::vector<std::string> names;
        if (const Lease* lease = find(id); lease != nullptr) {
            for (const Record* record : lease->keys)
                names.emplace_back(record->key());
        }
        return names;
    }

    void grant(LeaseId id, std::int64_t ttl_seconds, std::uint64_t granted) {
        leases_.try_emplace(id, Lease{ttl_seconds, granted, {}});
    }
    // Its keys have been deleted.
    void remove(LeaseId id) { leases_.erase(id); }
    // `now` has taken the place of `before` (nullptr: none) as its key's newest record.
    void replaced(const Record* before, const Record* now) {
        if (before != nullptr && !before->tombstone()) {
            if (const auto it = leases_.find(before->fields().lease); it != leases_.end())
                it->second.keys.erase(before);
        }
        if (now->tombstone()) return;
        if (const auto it = leases_.find(now->fields().lease); it != leases_.end())
            it->second.keys.insert(now);
    }

  private:
    std::map<LeaseId, Lease> leases_;
};

}  // namespace outrider::store
