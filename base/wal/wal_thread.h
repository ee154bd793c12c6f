// A log on a thread of its own: batches from any thread in, one write and one fdatasync for all that wait, answers out.
// Group commit needs no timer: while one sync runs, the next group gathers.
//
// Invariants
//   * Batches and tasks are carried out in the order in which they were handed in, each whole.
//   * Every answer is given exactly once, in that order, on the log's thread; a success after the sync that covers it.
//   * Queued bytes never exceed queue_bytes_max: append() and submit() answer false, and nothing was taken.
//   * After a failure of the log (Wal::failed()) every batch is answered with that error at once.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "base/result.h"
#include "base/wal/wal.h"

namespace outrider::wal {

// Records that go in together, with their bytes.
class Batch {
  public:
    // At most kPayloadBytesMax; a larger one is answered with an error when it is appended.
    void add(std::uint8_t type, std::string_view payload) {
        sizes_.push_back({type, payload.size()});
        payloads_.append(payload);
        bytes_ += record_bytes(payload.size());
    }
    bool empty() const { return sizes_.empty(); }
    std::size_t size() const { return sizes_.size(); }
    // In the log.
    std::uint64_t bytes() const { return bytes_; }
    // Appends its records to `out`; they point into this batch.
    void records(std::vector<Record>& out) const;

  private:
    struct Size {
        std::uint8_t type;
        std::size_t bytes;
    };
    std::string payloads_;
    std::vector<Size> sizes_;
    std::uint64_t bytes_ = 0;
};

class WalThread {
  public:
    struct Options {
        std::uint64_t queue_bytes_max = std::uint64_t{64} << 20;
        // In one write and sync, unless one batch is larger: what has just come does not wait for all of a long queue.
        std::uint64_t group_bytes_max = std::uint64_t{4} << 20;
        // false: answers come when the bytes are written, and a crash of the machine may take them.
        bool sync = true;
    };
    // The index of the batch's first record. Called on the log's thread: it posts to where the caller lives.
    using OnDone = std::function<void(const Result<Index>&)>;
    using Task = std::function<void(Wal&)>;

    WalThread(std::unique_ptr<Wal> log, Options options);
    // Carries out what is queued.
    ~WalThread();
    WalThread(const WalThread&) = delete;
    WalThread& operator=(const WalThread&) = delete;

    // From any thread.
    [[nodiscard]] bool append(Batch batch, OnDone on_done);
    // Anything else that the log does (release, truncate_after, scan), behind what was appended before it, synced.
    [[nodiscard]] bool submit(Task task);
    std::uint64_t queued_bytes() const;

  private:
    struct Item {
        Batch batch;
        OnDone on_done;
        Task task;  // set: a task
        std::uint64_t bytes = 0;
    };

    bool enqueue(Item item);
    void run();
    void carry_out(std::vector<Item>& items);
    // Appends and syncs items[begin, end), all batches, and answers them.
    void commit(std::vector<Item>& items, std::size_t begin, std::size_t end);
    void give_back(std::uint64_t bytes);

    const std::unique_ptr<Wal> log_;
    const Options options_;
    std::vector<Record> records_;

    mutable std::mutex mutex_;
    std::condition_variable wake_;
    std::vector<Item> queue_;
    std::uint64_t queued_bytes_ = 0;  // what is being carried out included
    bool idle_ = false;
    bool stopping_ = false;
    std::thread thread_;  // last: it uses the others
};

}  // namespace outrider::wal
