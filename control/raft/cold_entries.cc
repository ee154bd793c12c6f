#include "control/raft/cold_entries.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>

#include <xxhash.h>

#include "base/check.h"

namespace outrider::raft {

struct ColdEntries::Header {
    std::uint64_t term;
    std::uint64_t index;
    std::uint64_t client;
    std::uint64_t sequence;
    std::uint64_t data_bytes;
    std::uint64_t type;
    std::uint64_t data_check;
    std::uint64_t check;  // of what is before it

    std::uint64_t make_check() const { return XXH3_64bits(this, offsetof(Header, check)); }
};

namespace {

void require_right(bool right) {
    require(right, "an old entry is read as it was written; is the disk of the data directory broken?");
}

}  // namespace

const ColdEntries::Block& ColdEntries::block_of(std::uint64_t number) const {
    require(number >= begin_ && number < end_, "the entry is among the cold ones");
    const auto behind = std::upper_bound(blocks_.begin(), blocks_.end(), number,
                                         [](std::uint64_t n, const Block& block) { return n < block.first; });
    return *(behind - 1);
}

std::uint64_t ColdEntries::bytes(std::uint64_t place) const {
    const Block& block = block_of(begin_ + place);
    const std::size_t i = begin_ + place - block.first;
    return (i + 1 < block.offsets.size() ? block.offsets[i + 1] : block.used) - block.offsets[i];
}

const char* ColdEntries::read(std::uint64_t number, Header& header) const {
    const Block& block = block_of(number);
    const char* const from = block.memory.data() + block.offsets[number - block.first];
    std::memcpy(&header, from, sizeof header);
    require_right(header.check == header.make_check());
    return from + sizeof header;
}

Term ColdEntries::term(std::uint64_t place) const {
    Header header;
    read(begin_ + place, header);
    return {header.term};
}

Entry ColdEntries::at(std::uint64_t place) const {
    const std::uint64_t number = begin_ + place;
    Header header;
    const char* const data = read(number, header);
    require_right(header.data_check == XXH3_64bits(data, header.data_bytes));
    Entry entry;
    entry.term = {header.term};
    entry.index = {header.index};
    entry.type = static_cast<EntryType>(header.type);
    entry.command.client = header.client;
    entry.command.sequence = header.sequence;
    if (entry.type == EntryType::kCommand)
        entry.command.data = std::make_shared<const std::string>(data, header.data_bytes);
    if (entry.type == EntryType::kConfiguration) entry.configuration = configurations_.at(number);
    return entry;
}

char* ColdEntries::room_for(std::size_t bytes) {
    if (blocks_.empty() || blocks_.back().memory.size() - blocks_.back().used < bytes) {
        // The one that is full, and in turns others, which a follower that lags may have been sent.
        if (!blocks_.empty()) memory_->cool(blocks_.back().memory);
        for (std::size_t i = std::min(kCoolAgain, blocks_.size()); i > 0; --i)
            memory_->cool(blocks_[++cooled_ % blocks_.size()].memory);
        Block& block = blocks_.emplace_back();
        block.memory = memory_->take(bytes);
        block.first = end_;
    }
    Block& block = blocks_.back();
    char* const room = block.memory.data() + block.used;
    block.offsets.push_back(static_cast<std::uint32_t>(block.used));
    block.used += bytes;
    return room;
}

void ColdEntries::push_back(const Entry& entry) {
    Header header{};
    header.term = entry.term.value;
    header.index = entry.index.value;
    header.client = entry.command.client;
    header.sequence = entry.command.sequence;
    header.type = static_cast<std::uint64_t>(entry.type);
    const char* data = "";
    if (entry.command.data != nullptr) {
        data = entry.command.data->data();
        header.data_bytes = entry.command.data->size();
    }
    header.data_check = XXH3_64bits(data, header.data_bytes);
    header.check = header.make_check();
    char* const room = room_for(sizeof header + header.data_bytes);
    std::memcpy(room, &header, sizeof header);
    std::memcpy(room + sizeof header, data, header.data_bytes);
    if (entry.configuration != nullptr) configurations_.emplace(end_, entry.configuration);
    ++end_;
}

void ColdEntries::pop_front(std::uint64_t count) {
    begin_ += count;
    require(begin_ <= end_, "no more entries are dropped than there are");
    while (!blocks_.empty() && blocks_.front().first + blocks_.front().offsets.size() <= begin_) {
        memory_->give_back(blocks_.front().memory);
        blocks_.pop_front();
    }
    configurations_.erase(configurations_.begin(), configurations_.lower_bound(begin_));
}

void ColdEntries::truncate(std::uint64_t size) {
    if (size >= this->size()) return;
    end_ = begin_ + size;
    while (!blocks_.empty() && blocks_.back().first >= end_) {
        memory_->give_back(blocks_.back().memory);
        blocks_.pop_back();
    }
    if (!blocks_.empty() && end_ < blocks_.back().first + blocks_.back().offsets.size()) {
        Block& block = blocks_.back();
        block.used = block.offsets[end_ - block.first];
        block.offsets.resize(end_ - block.first);
    }
    configurations_.erase(configurations_.lower_bound(end_), configurations_.end());
}

void ColdEntries::clear() {
    pop_front(size());
    for (const Block& block : blocks_)
        memory_->give_back(block.memory);
    blocks_.clear();
}

}  // namespace outrider::raft
