// The changes of one command: they share a revision, and nobody sees them before it is whole.
#pragma once

#include <cstdint>
#include <vector>

#include "control/store/store.h"

namespace outrider::store {

// Of the keys and values that one command's answer holds, what a deletion returns included. Part of the format, not of a
// member's settings: all members decide alike. Without it a small transaction of many ranges would make each of them build
// many copies of the store, and again at every start.
inline constexpr std::uint64_t kCommandAnswerBytesMax = std::uint64_t{64} << 20;
// What a key that is only looked at counts for: looking at many millions of them takes seconds.
inline constexpr std::uint64_t kLookBytes = 8;

class Transaction {
  public:
    explicit Transaction(Store& store) : store_(store), base_(store.revision_) {}

    // What put() would refuse; nothing is changed.
    Status check(const PutRequest& put) const;
    Status check(const RangeRequest& range) const;
    Status check(const DeleteRequest& request);
    PutResponse put(const PutRequest& put);
    DeleteResponse erase(const DeleteRequest& request);
    void erase_key(std::string_view key);
    RangeResponse range(const RangeRequest& request) const;
    // Refuses all of it, before the first change, if one operation on the chosen path is refused.
    Response run(const TxnRequest& txn);

    bool changed() const { return sub_ > 0; }
    Revision revision() const { return changed() ? base_ + 1 : base_; }
    void commit() { store_.revision_ = revision(); }

  private:
    // For each transaction, in the order in which they run: which branch.
    using Path = std::vector<bool>;

    bool holds(const Compare& compare) const;
    void choose(const TxnRequest& txn, Path& path) const;
    Status check(const TxnRequest& txn, const Path& path, std::size_t& next);
    Status check(const Op& op);
    Status charge(std::uint64_t bytes);
    Status charge(const RangeRequest& range);
    TxnResponse run(const TxnRequest& txn, const Path& path, std::size_t& next);
    OpResponse run(const Op& op, const Path& path, std::size_t& next);
    void write(KeyIndex::Cursor at, Record* before, Record::Fields fields);

    Store& store_;
    const Revision base_;
    std::uint32_t sub_ = 0;
    // While it is checked, of the operations so far. A range sees the writes before it, so their bytes count in each range behind
    // them; and behind a deletion a range with a limit may reach any key.
    std::uint64_t answer_bytes_ = 0;
    std::uint64_t put_bytes_ = 0;
    bool deletes_ = false;
};

}  // namespace outrider::store
