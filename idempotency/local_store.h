// The store of kinds memory and log: the keys live on one thread, the singular update queue. Workers hand it what one turn of their
// loop has collected; it takes all that is queued, makes one round of it (local_engine.h), and posts each worker its replies at
// once. Group commit needs no timer: while one sync runs, the next round gathers (and after a large one a little longer: gathering.h).
//
// Bounds: a client has at most max_waiting + kQuestionsMax questions outstanding; further ones are answered StoreFailed, and
// reports (which follow from answers, thus from exchanges) at twice that.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "base/result.h"
#include "base/uv/loop.h"
#include "base/wal/posix_files.h"
#include "config/settings.h"
#include "idempotency/gathering.h"
#include "idempotency/local_engine.h"
#include "idempotency/store.h"

namespace outrider::idempotency {

class LocalClient;

class LocalStore final : public Store {
  public:
    static constexpr std::size_t kQuestionsMax = 16'384;

    struct Options {
        StoreCells cells{};  // of the store's thread: wal_sync, errors
        wal::FileSystem* files = &wal::posix_files();
        Duration lock_patience = std::chrono::seconds(1);
    };

    // Kind memory or log. On the main thread, whose loop is `main`: reads the log, a million keys in about a second, and may
    // wait lock_patience for the directory. The error is a whole sentence.
    static Result<std::unique_ptr<LocalStore>> open(const config::StoreSettings& settings, uv::Loop& main,
                                                    const Options& options);
    // Carries out what is queued, durably. Replies to those who have not closed are lost.
    ~LocalStore() override;

    std::unique_ptr<StoreClient> connect(uv::Loop& loop, const StoreCells& cells) override;
    void look(const policy::Digest& key, std::function<void(Result<KeyView>)> done) override;
    void forget(const policy::Digest& key, std::function<void(Result<policy::Forgotten>)> done) override;
    void status(std::function<void(StoreStatus)> done) override;

  private:
    friend class LocalClient;

    // What the store's thread knows of a client. `loop` is guarded: once it is null, nothing is posted any more.
    struct End {
        std::uint32_t id = 0;
        std::mutex mutex;
        uv::Loop* loop = nullptr;
        LocalClient* client = nullptr;  // of the loop's thread alone; null: closed
    };
    // Carried out between two rounds; adds to the replies of the first.
    using AdminTask = std::function<void(LocalEngine&, std::vector<Reply>&)>;

    LocalStore(std::unique_ptr<LocalEngine> engine, std::size_t questions_max, uv::Loop& main);

    // From any thread.
    void hand_over(std::vector<Question>& questions);
    void submit(AdminTask task);
    void wake_if_idle(std::unique_lock<std::mutex>& lock);

    // The store's thread.
    void run();
    bool wait_for_work(std::vector<Question>& questions, std::vector<AdminTask>& tasks);
    void gather(std::unique_lock<std::mutex>& lock);
    void hand_out(std::vector<Reply>& replies);
    static void post(const std::shared_ptr<End>& end, std::vector<Reply> replies);
    void forget_closed(const std::vector<std::uint32_t>& ids);

    const std::unique_ptr<LocalEngine> engine_;
    const std::size_t questions_max_;
    uv::Loop& main_;

    std::mutex mutex_;
    std::condition_variable wake_;
    std::vector<Question> queue_;
    std::vector<AdminTask> tasks_;
    std::map<std::uint32_t, std::shared_ptr<End>> ends_;
    std::uint32_t last_client_ = 0;
    bool idle_ = false;
    bool stopping_ = false;
    Gathering gathering_;                                 // the thread's
    std::map<std::uint32_t, std::vector<Reply>> sorted_;  // the thread's: replies of one round by client
    std::thread thread_;                                  // last: it uses the others
};

}  // namespace outrider::idempotency
