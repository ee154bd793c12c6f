// Everything at once, by chance: requests in several turns, answers in fragments, clients that leave, and an end of one kind or
// another. Whatever happens, no answer is another's, what was answered is delivered once, and what was not is handed back.
//
// A failure prints its seed; OUTRIDER_SEED=N runs that one alone.
#include <cstdlib>
#include <deque>
#include <set>

#include "base/random.h"
#include "tests/proxy/pipelined_channel_fixture.h"

namespace outrider::proxy::test {
namespace {

class PipelinedChannelProperty : public PipelinedChannelTest {
  protected:
    enum class Ending { kComplete, kReset, kCutAndReset, kFin, kCutAndFin, kExtra, kGarbage, kClosing };
    static constexpr int kEndings = 8;

    void run_one(std::uint64_t seed) {
        random_ = Random(seed);
        pending_.clear();
        left_.clear();
        answered_ = 0;
        open();
        for (std::uint64_t rounds = 1 + random_.below(5); rounds > 0; --rounds) {
            ask_some();
            if (random_.below(3) == 0) somebody_leaves();
            for (std::uint64_t count = random_.below(pending_.size() + 1); count > 0; --count)
                answer_next();
        }
        // So that a break finds some who wait; the socket's other side may be done already.
        if (random_.below(4) != 0) ask_some();
        end_it(static_cast<Ending>(random_.below(kEndings)));
        check();
    }

    void check() {
        expect_nothing_astray();
        std::size_t ends = 0, failures = 0;
        for (std::size_t i = 0; i < riders_.size(); ++i) {
            const Rider& r = rider(i);
            if (left_.contains(i)) continue;
            EXPECT_TRUE(r.over()) << r.name << ": " << r.heard;
            ends += r.heard.ends_with("end;") ? 1 : 0;
            failures += r.failed() ? 1 : 0;
            const bool was_answered = i < answered_;
            EXPECT_EQ(r.heard.ends_with("end;"), was_answered) << r.name << ": " << r.heard;
            returned_ += r.heard == "returned;" ? 1 : 0;
            if (r.heard.ends_with("returned;")) {
                EXPECT_EQ(r.heard, "returned;") << "nothing of its answer was given to it";
            }
        }
        EXPECT_LE(failures, 1u) << "only whose answer had begun";
        EXPECT_LE(ends, answered_);
        delivered_ += ends;
        failed_ += failures;
    }

    std::size_t delivered_ = 0, returned_ = 0, failed_ = 0;  // over all seeds

  private:
    void ask_some() {
        if (gone_) return;
        const std::size_t first = riders_.size();
        run_.in_event([&] {
            for (std::uint64_t i = 1 + random_.below(4); i > 0; --i)
                ask("r" + std::to_string(riders_.size()) + std::string(random_.below(40), 'x'));
        });
        for (std::size_t i = first; i < riders_.size(); ++i)
            pending_.push_back(i);
        ASSERT_TRUE(run_.until([&] { return server_->got("/" + riders_.back()->name + " "); }));
    }
    void somebody_leaves() {
        if (pending_.empty()) return;
        const std::size_t who = pending_[random_.below(pending_.size())];
        if (!left_.insert(who).second) return;
        run_.in_event([&] { channel_->leave(rider(who).id); });
    }

    // In one of the forms that an answer can have.
    std::string some_answer(const std::string& name, const std::string& fields = "") {
        std::string wire;
        if (random_.below(4) == 0) wire += "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
        if (random_.below(2) == 0) return wire + answer(name, fields);
        char size[8];
        std::snprintf(size, sizeof size, "%zx", name.size() - 1);
        return wire + "HTTP/1.1 200 OK\r\n" + fields + "Transfer-Encoding: chunked\r\n\r\n1\r\n" +
               name.substr(0, 1) + "\r\n" + size + "\r\n" + name.substr(1) + "\r\n0\r\nX-T: 1\r\n\r\n";
    }
    void send_in_pieces(std::string_view wire) {
        const std::size_t most = random_.below(2) == 0 ? 5 : 200;
        while (!wire.empty()) {
            const std::size_t size = std::min<std::size_t>(1 + random_.below(most), wire.size());
            server_->send(wire.substr(0, size));
            if (random_.below(2) == 0) run_.settle(1);
            wire.remove_prefix(size);
        }
    }
    void answer_next() {
        send_in_pieces(some_answer(rider(pending_.front()).name));
        pending_.pop_front();
        ++answered_;
    }
    // The channel has taken in all that was sent: a reset throws away what the kernel still holds.
    void until_taken_in(std::size_t part_of_next) {
        ASSERT_TRUE(run_.until([&] {
            if (channel_->line().answered() != answered_) return false;
            return part_of_next == 0 || pending_.empty() || left_.contains(pending_.front()) ||
                   rider(pending_.front()).body.size() == part_of_next;
        }));
    }
    bool all_but_those_who_left_are_over() {
        for (std::size_t i = 0; i < riders_.size(); ++i) {
            if (!left_.contains(i) && !rider(i).over()) return false;
        }
        return true;
    }

    void end_it(Ending ending) {
        switch (ending) {
            case Ending::kComplete:
                while (!pending_.empty())
                    answer_next();
                break;
            case Ending::kReset:
            case Ending::kCutAndReset:
            case Ending::kFin:
            case Ending::kCutAndFin: {
                const bool cut = ending == Ending::kCutAndReset || ending == Ending::kCutAndFin;
                if (cut && !pending_.empty()) {
                    const std::string whole = answer(rider(pending_.front()).name);
                    send_in_pieces(std::string_view(whole).substr(0, whole.size() - 1));
                }
                if (ending == Ending::kFin || ending == Ending::kCutAndFin) {
                    server_->half_close();
                } else {
                    until_taken_in(cut && !pending_.empty() ? rider(pending_.front()).name.size() - 1 : 0);
                    server_->reset();
                }
                break;
            }
            case Ending::kExtra:  // one answer more than there were requests
                while (!pending_.empty())
                    answer_next();
                send_in_pieces(some_answer("stray"));
                ASSERT_TRUE(run_.until([&] { return gone_; }));
                break;
            case Ending::kGarbage:
                send_in_pieces("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx");
                ASSERT_TRUE(run_.until([&] { return gone_; }));
                break;
            case Ending::kClosing:
                if (pending_.empty()) break;
                send_in_pieces(some_answer(rider(pending_.front()).name, "Connection: close\r\n"));
                pending_.pop_front();
                ++answered_;
                // Whatever comes behind it is nobody's.
                send_in_pieces(some_answer("stray"));
                break;
        }
        ASSERT_TRUE(run_.until([&] { return all_but_those_who_left_are_over(); }));
    }

    Random random_{0};
    std::deque<std::size_t> pending_;  // riders whose answer was not sent
    std::set<std::size_t> left_;
    std::size_t answered_ = 0;  // the first so many riders, in the order of their requests
};

TEST_F(PipelinedChannelProperty, WhateverHappensNoAnswerGoesAstray) {
    const char* const one = std::getenv("OUTRIDER_SEED");
    const std::uint64_t first = one != nullptr ? std::strtoull(one, nullptr, 10) : 1;
    const std::uint64_t last = one != nullptr ? first : 150;
    for (std::uint64_t seed = first; seed <= last; ++seed) {
        SCOPED_TRACE(testing::Message() << "OUTRIDER_SEED=" << seed);
        run_one(seed);
        if (HasFailure()) return;
    }
    if (one != nullptr) return;
    EXPECT_GT(delivered_, 300u);  // it happens, and often
    EXPECT_GT(returned_, 50u);
    EXPECT_GT(failed_, 10u);
}

}  // namespace
}  // namespace outrider::proxy::test
