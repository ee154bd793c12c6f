#include "idempotency/local_store.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "base/log.h"
#include "base/uv/acceptor.h"
#include "idempotency/local_client.h"

namespace outrider::idempotency {
namespace {

// Longer than this nothing needs to be waited for in one go.
constexpr Duration kSleepMax = std::chrono::hours(1);

}  // namespace

// The main thread
// ---------------------------------------------------------------------------------------------------------

Result<std::unique_ptr<LocalStore>> LocalStore::open(const config::StoreSettings& settings, uv::Loop& main,
                                                     const Options& options) {
    const Instant begin = uv::read_clock();
    auto engine = LocalEngine::open(settings, {.files = options.files,
                                               .clock = uv::read_clock,
                                               .wall = uv::read_wall_clock(),
                                               .secret = uv::random_seed(),
                                               .patience = options.lock_patience,
                                               .pause = [](Duration d) { std::this_thread::sleep_for(d); },
                                               .cells = options.cells});
    if (!engine) return Error{engine.error()};
    if (const LocalLog* log = (*engine)->log()) {
        const StoreStatus status = (*engine)->status();
        log_info("store {}: {} keys from {} records in {} read in {} ms", settings.name,
                 status.in_flight + status.done + status.unknown, log->recovery().records, settings.path,
                 millis_of(uv::read_clock() - begin));
    }
    return std::unique_ptr<LocalStore>(
        new LocalStore(std::move(*engine), settings.max_waiting + kQuestionsMax, main));
}

LocalStore::LocalStore(std::unique_ptr<LocalEngine> engine, std::size_t questions_max, uv::Loop& main)
    : engine_(std::move(engine)), questions_max_(questions_max), main_(main), thread_([this] { run(); }) {}

LocalStore::~LocalStore() {
    {
        const std::lock_guard lock(mutex_);
        stopping_ = true;
    }
    wake_.notify_one();
    thread_.join();
}

void LocalStore::look(const policy::Digest& key, std::function<void(Result<KeyView>)> done) {
    submit([this, key, done = std::move(done)](LocalEngine& engine, std::vector<Reply>&) {
        main_.post([done, view = engine.look(key)] { done(view); });
    });
}

void LocalStore::forget(const policy::Digest& key, std::function<void(Result<policy::Forgotten>)> done) {
    submit([this, key, done = std::move(done)](LocalEngine& engine, std::vector<Reply>& replies) {
        main_.post([done, forgotten = engine.forget(key, replies)] { done(forgotten); });
    });
}

void LocalStore::status(std::function<void(StoreStatus)> done) {
    submit([this, done = std::move(done)](LocalEngine& engine, std::vector<Reply>&) {
        main_.post([done, status = engine.status()] { done(status); });
    });
}

// Any thread
// ---------------------------------------------------------------------------------------------------------

std::unique_ptr<StoreClient> LocalStore::connect(uv::Loop& loop, const StoreCells& cells) {
    auto end = std::make_shared<End>();
    end->loop = &loop;
    {
        const std::lock_guard lock(mutex_);
        end->id = ++last_client_;
        ends_.emplace(end->id, end);
    }
    return std::make_unique<LocalClient>(*this, std::move(end), loop, cells);
}

void LocalStore::hand_over(std::vector<Question>& questions) {
    std::unique_lock lock(mutex_);
    if (queue_.empty()) {
        queue_.swap(questions);
    } else {
        std::move(questions.begin(), questions.end(), std::back_inserter(queue_));
    }
    wake_if_idle(lock);
    questions.clear();
}

void LocalStore::submit(AdminTask task) {
    std::unique_lock lock(mutex_);
    tasks_.push_back(std::move(task));
    wake_if_idle(lock);
}

void LocalStore::wake_if_idle(std::unique_lock<std::mutex>& lock) {
    const bool wake = std::exchange(idle_, false);
    lock.unlock();
    if (wake) wake_.notify_one();
}

// The store's thread
// ---------------------------------------------------------------------------------------------------------

void LocalStore::run() {
    std::vector<Question> questions;
    std::vector<AdminTask> tasks;
    std::vector<Reply> replies;
    std::vector<std::uint32_t> closed;
    while (wait_for_work(questions, tasks)) {
        for (const Question& question : questions) {
            if (std::holds_alternative<ClientGone>(question.what)) closed.push_back(question.ticket.client);
        }
        std::size_t taken = 0;
        do {
            const std::size_t before = taken;
            taken += engine_->round(std::span(questions).subspan(taken), replies);
            gathering_.finished(taken - before, engine_->waited_for_disk());
            for (const AdminTask& task : tasks)
                task(*engine_, replies);
            tasks.clear();
            hand_out(replies);
            engine_->tidy();
        } while (taken < questions.size());
        questions.clear();
        forget_closed(std::exchange(closed, {}));
    }
    engine_->finish();
}

// False: stopping, and nothing is left to do.
bool LocalStore::wait_for_work(std::vector<Question>& questions, std::vector<AdminTask>& tasks) {
    const std::optional<Instant> due = engine_->next_due();
    std::unique_lock lock(mutex_);
    const auto ready = [this] { return stopping_ || !queue_.empty() || !tasks_.empty(); };
    if (!ready()) {
        const Instant now = uv::read_clock();
        idle_ = true;
        // What is long due counts from now on: Instant::min() has no distance.
        if (!due || *due > now)
            wake_.wait_for(lock, due ? std::min(*due - now, kSleepMax) : kSleepMax, ready);
        idle_ = false;
    }
    gather(lock);
    questions.swap(queue_);
    tasks.swap(tasks_);
    return !stopping_ || !questions.empty() || !tasks.empty();
}

void LocalStore::gather(std::unique_lock<std::mutex>& lock) {
    bool yield = gathering_.begins() && !stopping_;
    while (yield) {
        const std::size_t before = queue_.size();
        const Instant begin = uv::read_clock();
        lock.unlock();
        std::this_thread::yield();
        lock.lock();
        yield = gathering_.yielded(queue_.size() - before, uv::read_clock() - begin);
    }
}

void LocalStore::hand_out(std::vector<Reply>& replies) {
    if (replies.empty()) return;
    for (Reply& reply : replies)
        sorted_[reply.ticket.client].push_back(std::move(reply));
    replies.clear();
    std::vector<std::pair<std::shared_ptr<End>, std::vector<Reply>>> out;
    {
        const std::lock_guard lock(mutex_);
        for (auto& [id, list] : sorted_) {
            const auto end = ends_.find(id);
            if (end != ends_.end() && !list.empty()) out.emplace_back(end->second, std::move(list));
        }
    }
    sorted_.clear();
    for (auto& [end, list] : out)
        post(end, std::move(list));
}

void LocalStore::post(const std::shared_ptr<End>& end, std::vector<Reply> replies) {
    const std::lock_guard lock(end->mutex);
    if (end->loop == nullptr) return;
    end->loop->post([end, replies = std::move(replies)] {
        if (end->client != nullptr) end->client->deliver(replies);
    });
}

void LocalStore::forget_closed(const std::vector<std::uint32_t>& ids) {
    if (ids.empty()) return;
    const std::lock_guard lock(mutex_);
    for (const std::uint32_t id : ids)
        ends_.erase(id);
}

}  // namespace outrider::idempotency
