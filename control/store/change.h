// One change of one key, with its place in the order of all: what the store's history is made of.
//
// The history is in cold memory (base/cold_memory.h), which may be a file's: each change has a check, and who reads it calls
// require_whole() before following it. A search through the history reads mod() alone: what misled it stands beside where it ended.
#pragma once

#include <cstdint>

#include "control/store/record.h"
#include "control/store/types.h"

namespace outrider::store {

class Change {
  public:
    explicit Change(Record* record) { moved_to(record); }

    Revision mod() const { return mod_; }  // the record's
    Record* record() const { return record_; }
    void moved_to(Record* record);
    // These end the process: if mod() and record() are not what they were …
    void require_same() const;
    // … or the record's place in its chain is not.
    void require_whole() const;

  private:
    std::uint32_t check() const;

    Revision mod_;
    Record* record_ = nullptr;
    std::uint32_t cold_ = 0;  // 1: the record is
    std::uint32_t check_ = 0;
};

}  // namespace outrider::store
