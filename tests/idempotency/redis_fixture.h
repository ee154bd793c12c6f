// Calls, settings and a client on the test's own loop, for the tests of the Redis store.
#pragma once

#include <csignal>
#include <memory>
#include <optional>
#include <string>

#include <gtest/gtest.h>

#include "base/log.h"
#include "idempotency/redis_client.h"
#include "idempotency/redis_store.h"
#include "tests/base_uv/loop_fixture.h"
#include "tests/idempotency/log_text.h"
#include "tests/idempotency/redis_server.h"

namespace outrider::idempotency::test {

using namespace std::chrono_literals;
using http::test::LoopRun;

inline policy::Digest digest(const std::string& name) {
    return policy::key_digest({}, "test", name);
}

struct TestCall final : Call {
    void on_verdict(const policy::Verdict& said) override {
        EXPECT_FALSE(inside) << "answered from within the call";
        ++verdicts;
        verdict = said;
    }
    void on_settled(policy::Settled said, bool durably) override {
        EXPECT_FALSE(inside) << "answered from within the call";
        ++settles;
        settled = said;
        durable = durably;
    }
    template <typename T>
    const T* as() const {
        return verdict ? std::get_if<T>(&*verdict) : nullptr;
    }
    policy::Owner owner() const {
        const auto* forward = as<policy::Forward>();
        EXPECT_NE(forward, nullptr);
        return forward != nullptr ? forward->owner : policy::Owner{};
    }

    std::optional<policy::Verdict> verdict;
    std::optional<policy::Settled> settled;
    bool durable = false;
    int verdicts = 0;
    int settles = 0;
    bool inside = false;
};

inline Answered answer(std::string body, std::uint16_t status = 200) {
    return {{status,
             std::make_shared<const policy::StoredResponse>(policy::StoredResponse{"h", std::move(body)})}};
}

inline config::StoreSettings settings_for(const RedisServer& server) {
    config::StoreSettings settings;
    settings.name = "orders";
    settings.kind = config::StoreKind::kRedis;
    settings.url.hosts = {server.address()};
    settings.operation_timeout = 5s;  // what a test that is not about it must not run into
    return settings;
}

// A loop with a client on it.
class Worker {
  public:
    explicit Worker(const config::StoreSettings& settings, bool wait = true)
        : Worker(std::make_shared<RedisShared>(settings), wait) {}
    explicit Worker(std::shared_ptr<RedisShared> of, bool wait = true)
        : shared(std::move(of)), client(std::make_unique<RedisClient>(run.loop(), shared, cells())) {
        std::signal(SIGPIPE, SIG_IGN);
        if (wait) {
            EXPECT_TRUE(run.until([&] { return client->ready(); }));
        }
    }
    ~Worker() {
        client->close();
        client.reset();
        run.settle(3);
    }

    void arrive(TestCall& call, const std::string& key, const policy::IdempotencyPolicy& policy = {},
                const std::string& fingerprint = "f") {
        run.in_event([&] {
            call.inside = true;
            client->arrive(call, digest(key), digest(fingerprint), policy, run.loop().now());
            call.inside = false;
        });
    }
    TestCall& asked(TestCall& call, const std::string& key, const policy::IdempotencyPolicy& policy = {},
                    const std::string& fingerprint = "f") {
        arrive(call, key, policy, fingerprint);
        EXPECT_TRUE(run.until([&] { return call.verdicts == 1; }));
        return call;
    }
    void settle(TestCall& call, const std::string& key, Report report) {
        const policy::Owner owner = call.owner();
        run.in_event([&] {
            call.inside = true;
            client->settle(call, digest(key), owner, std::move(report));
            call.inside = false;
        });
        EXPECT_TRUE(run.until([&] { return call.settles == 1; }));
    }

    // Until something is true that the loop does not see happen.
    bool eventually(const std::function<bool()>& holds) {
        return run.until([&] {
            run.loop().post([] {});  // so that it does not sleep
            return holds();
        });
    }

    StoreCells cells() { return {&seconds, nullptr, &errors}; }

    Histogram seconds;
    Counter errors;
    LoopRun run;
    std::shared_ptr<RedisShared> shared;
    std::unique_ptr<RedisClient> client;
};

}  // namespace outrider::idempotency::test
