// What a request costs the thread of a worker when its keys are in Redis: one arrive and one answered, with so many requests in flight.
//
//     redis_figures [IN_FLIGHT [REQUESTS]]
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <ctime>

#include "idempotency/redis_client.h"
#include "tests/idempotency/redis_server.h"

namespace outrider::idempotency::test {
namespace {

double thread_seconds() {
    timespec ts{};
    ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
    return static_cast<double>(ts.tv_sec) + 1e-9 * static_cast<double>(ts.tv_nsec);
}

struct Run {
    uv::Loop loop;
    std::unique_ptr<RedisClient> client;
    std::uint64_t begun = 0, done = 0, failed = 0, requests = 0;
    double seconds = 0;
    std::uint64_t writes = 0;
    bool before = true;
};

class Request final : public Call {
  public:
    explicit Request(Run& run) : run_(run) {}
    void begin() {
        if (run_.begun == run_.requests) return;
        key_ = policy::key_digest({}, "figures", std::to_string(run_.begun++));
        run_.client->arrive(*this, key_, key_, {.window = std::chrono::seconds(60)}, run_.loop.now());
    }

  private:
    void on_verdict(const policy::Verdict& verdict) override {
        const auto* forward = std::get_if<policy::Forward>(&verdict);
        if (forward == nullptr) {
            on_settled({}, false);
            return;
        }
        static const auto kResponse = std::make_shared<const policy::StoredResponse>(
            policy::StoredResponse{"content-type: application/json\r\n", std::string(200, 'x')});
        run_.client->settle(*this, key_, forward->owner, Answered{{200, kResponse}});
    }
    void on_settled(policy::Settled, bool durable) override {
        run_.failed += durable ? 0 : 1;
        if (++run_.done == run_.requests) {
            run_.loop.stop();
        } else {
            begin();
        }
    }
    Run& run_;
    policy::Digest key_;
};

int figures(std::uint64_t in_flight, std::uint64_t requests) {
    std::signal(SIGPIPE, SIG_IGN);
    const RedisServer server;
    config::StoreSettings settings;
    settings.name = "figures";
    settings.kind = config::StoreKind::kRedis;
    settings.url.hosts = {server.address()};
    settings.operation_timeout = std::chrono::seconds(5);
    Run run;
    run.requests = requests;
    Histogram seconds;
    run.client = std::make_unique<RedisClient>(run.loop, std::make_shared<RedisShared>(settings),
                                               StoreCells{&seconds, nullptr, nullptr});
    std::vector<std::unique_ptr<Request>> all;
    double cpu = 0;
    Instant started{};
    std::function<void()> start = [&] {
        if (!run.client->ready()) {
            run.loop.after(std::chrono::milliseconds(5), start);
            return;
        }
        cpu = thread_seconds();
        started = run.loop.now();
        run.writes = run.client->writes();
        for (std::uint64_t i = 0; i < in_flight; ++i) {
            all.push_back(std::make_unique<Request>(run));
            all.back()->begin();
        }
    };
    run.loop.after(std::chrono::milliseconds(5), start);
    run.loop.run();
    cpu = thread_seconds() - cpu;
    const double wall = seconds_of(uv::read_clock() - started);
    const auto n = static_cast<double>(requests);
    std::printf(
        "%llu in flight: %.2f us of this thread's CPU a request, %.0f requests/s, %.1f commands a write, "
        "%llu failed\n",
        static_cast<unsigned long long>(in_flight), 1e6 * cpu / n, n / wall,
        2 * n / static_cast<double>(run.client->writes() - run.writes),
        static_cast<unsigned long long>(run.failed));
    run.client->close();
    run.client.reset();
    return run.failed == 0 ? 0 : 1;
}

}  // namespace
}  // namespace outrider::idempotency::test

int main(int argc, char** argv) {
    const auto number = [&](int i, std::uint64_t otherwise) {
        return argc > i ? std::strtoull(argv[i], nullptr, 10) : otherwise;
    };
    return outrider::idempotency::test::figures(number(1, 50), number(2, 200'000));
}
