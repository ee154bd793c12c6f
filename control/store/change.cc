#include "control/store/change.h"

#include <cstring>

#include <xxhash.h>

#include "base/check.h"

namespace outrider::store {

void Change::moved_to(Record* record) {
    mod_ = record->mod();
    record_ = record;
    cold_ = record->cold() ? 1 : 0;
    check_ = check();
}

void Change::require_same() const {
    require(check_ == check(), kBrokenDisk);
}

void Change::require_whole() const {
    require_same();
    require((cold_ == 0 || record_->whole_link()) && record_->mod() == mod_, kBrokenDisk);
}

std::uint32_t Change::check() const {
    unsigned char bytes[sizeof mod_.value + sizeof record_ + sizeof cold_];
    std::memcpy(bytes, &mod_.value, sizeof mod_.value);
    std::memcpy(bytes + sizeof mod_.value, &record_, sizeof record_);
    std::memcpy(bytes + sizeof mod_.value + sizeof record_, &cold_, sizeof cold_);
    return static_cast<std::uint32_t>(XXH3_64bits(bytes, sizeof bytes));
}

}  // namespace outrider::store
