// The changes of one command: they share a revision, and nobody sees them before it is whole.
#pragma once

#include <cstdint>
#include <map>
#include <string_view>
#include <vector>

#include "control/store/store.h"

namespace outrider::store {

// A constant of the format, as every member must refuse the same: what the keys and values in the answer of one transaction
// or deletion may come to. 128 ranges of everything fit into a small request.
inline constexpr std::uint64_t kTxnAnswerBytesMax = std::uint64_t{64} << 20;
// What each key in it counts for beside its bytes.
inline constexpr std::uint64_t kTxnAnswerKeyCharge = 64;
// What each value that a comparison, a range or a second deletion looks at counts for, be it answered or not: 128 counts of everything
// would stop all members for as long as they take. 8 million of them are about a second.
inline constexpr std::uint64_t kTxnLookCharge = 8;

// What the operations of a transaction up to some place would have written: what a range behind them sees otherwise than the
// store has it. Names what is in the request, which stays.
class Planned {
  public:
    void put(std::string_view key, std::uint64_t bytes) { puts_[key] = bytes; }
    // True: it is the first.
    bool erase(const KeyRange& range) {
        erased_.push_back(&range);
        return erased_.size() == 1;
    }
    bool touches(std::string_view key) const;
    // Of what was put in the range, deleted since or not.
    std::uint64_t put_bytes(const KeyRange& range, bool keys_only) const;

  private:
    std::map<std::string_view, std::uint64_t> puts_;  // the values' bytes
    std::vector<const KeyRange*> erased_;
};

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

    bool holds(const Compare& compare);
    void choose(const TxnRequest& txn, Path& path);
    Status check(const TxnRequest& txn, const Path& path, std::size_t& next);
    Status check(const Op& op, const Path& path, std::size_t& next);
    // Before the operation: adds at least what its answer will hold.
    void plan(const PutRequest& put);
    void plan(const RangeRequest& range);
    void plan(const DeleteRequest& request);
    void count(const Record& record, bool keys_only);
    Status room() const {
        return answer_bytes_ > kTxnAnswerBytesMax ? Status::kResponseTooLarge : Status::kOk;
    }
    TxnResponse run(const TxnRequest& txn, const Path& path, std::size_t& next);
    OpResponse run(const Op& op, const Path& path, std::size_t& next);
    void write(KeyIndex::Cursor at, Record* before, Record::Fields fields);

    Store& store_;
    const Revision base_;
    std::uint32_t sub_ = 0;
    Planned planned_;
    std::uint64_t answer_bytes_ = 0;  // of what is planned
};

}  // namespace outrider::store
