// The changes of one command: they share a revision, and nobody sees them before it is whole.
#pragma once

#include <cstdint>
#include <vector>

#include "control/store/store.h"

namespace outrider::store {

class Transaction {
  public:
    explicit Transaction(Store& store) : store_(store), base_(store.revision_) {}

    // What put() would refuse; nothing is changed.
    Status check(const PutRequest& put) const;
    Status check(const RangeRequest& range) const;
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
    Status check(const TxnRequest& txn, const Path& path, std::size_t& next) const;
    TxnResponse run(const TxnRequest& txn, const Path& path, std::size_t& next);
    OpResponse run(const Op& op, const Path& path, std::size_t& next);
    void write(KeyIndex::Cursor at, Record* before, Record::Fields fields);

    Store& store_;
    const Revision base_;
    std::uint32_t sub_ = 0;
};

}  // namespace outrider::store
