#include "base/wal/wal_thread.h"

#include <utility>

namespace outrider::wal {
namespace {

constexpr std::uint64_t kTaskBytes = 256;  // what a queued task counts for

}  // namespace

void Batch::records(std::vector<Record>& out) const {
    std::size_t at = 0;
    for (const Size& size : sizes_) {
        out.push_back({size.type, std::string_view(payloads_).substr(at, size.bytes)});
        at += size.bytes;
    }
}

WalThread::WalThread(std::unique_ptr<Wal> log, Options options)
    : log_(std::move(log)), options_(options), thread_([this] { run(); }) {}

WalThread::~WalThread() {
    {
        const std::lock_guard lock(mutex_);
        stopping_ = true;
    }
    wake_.notify_one();
    thread_.join();
}

bool WalThread::append(Batch batch, OnDone on_done) {
    const std::uint64_t bytes = batch.bytes();
    return enqueue({std::move(batch), std::move(on_done), {}, bytes});
}

bool WalThread::submit(Task task) {
    return enqueue({{}, {}, std::move(task), kTaskBytes});
}

std::uint64_t WalThread::queued_bytes() const {
    const std::lock_guard lock(mutex_);
    return queued_bytes_;
}

bool WalThread::enqueue(Item item) {
    bool wake = false;
    {
        const std::lock_guard lock(mutex_);
        if (queued_bytes_ + item.bytes > options_.queue_bytes_max) return false;
        queued_bytes_ += item.bytes;
        queue_.push_back(std::move(item));
        wake = std::exchange(idle_, false);
    }
    if (wake) wake_.notify_one();
    return true;
}

void WalThread::run() {
    std::vector<Item> items;
    for (;;) {
        {
            std::unique_lock lock(mutex_);
            idle_ = true;
            wake_.wait(lock, [this] { return stopping_ || !queue_.empty(); });
            idle_ = false;
            if (queue_.empty()) return;
            items.swap(queue_);
        }
        carry_out(items);
        items.clear();
    }
}

void WalThread::carry_out(std::vector<Item>& items) {
    std::size_t begin = 0;
    while (begin < items.size()) {
        if (items[begin].task) {
            items[begin].task(*log_);
            give_back(items[begin].bytes);
            ++begin;
            continue;
        }
        std::size_t end = begin;
        std::uint64_t bytes = 0;
        while (end < items.size() && !items[end].task) {
            if (end != begin && bytes + items[end].bytes > options_.group_bytes_max) break;
            bytes += items[end].bytes;
            ++end;
        }
        commit(items, begin, end);
        give_back(bytes);
        begin = end;
    }
}

void WalThread::commit(std::vector<Item>& items, std::size_t begin, std::size_t end) {
    records_.clear();
    for (std::size_t i = begin; i < end; ++i)
        items[i].batch.records(records_);
    Result<Index> first = log_->append(records_);
    if (first && options_.sync) {
        if (auto synced = log_->sync(); !synced) first = Error{synced.error()};
    }
    for (std::size_t i = begin; i < end; ++i) {
        if (items[i].on_done) items[i].on_done(first);
        if (first) first = *first + items[i].batch.size();
        items[i] = {};  // its memory and what the answer holds on to
    }
}

void WalThread::give_back(std::uint64_t bytes) {
    const std::lock_guard lock(mutex_);
    queued_bytes_ -= bytes;
}

}  // namespace outrider::wal
