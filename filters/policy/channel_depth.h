// How deep one endpoint's sockets are pipelined, and on which socket a request rides. Pure: the caller owns sockets and
// requests and says when they are sent and answered. One per endpoint and worker; not for two threads at once.
//
// What is gained: requests to one socket leave in one write and come back in one read, which saves most of the system
// calls. What it costs: a request waits for all in front of it, and an upstream works on one of a connection at a time.
// So the depth follows what the upstream shows: deep while answers are quick and alike, shallow when a few of them are
// late, and one at a time, which is what a pooled connection is, when they vary or are slow.
//
// What is learnt, for each class of requests (the caller's number of a route, so that a slow route is not mistaken for
// a varying upstream), over about the last few hundred answers:
//   * alone: the mean latency of requests that had a connection to themselves (pooled, or first on an idle socket), and
//     typical: its lower quartile, which a few slow ones do not move.
//   * pace: the mean time an answer takes at the front of a pipelined socket. Answers that are seen at one instant
//     share the time that passed: an upstream may work through a whole connection in one go.
//   * late: the share of answers that took more than late_after = max(kLateLeast, kLateTimes * typical), of the last few
//     hundred or the last some thousand answers, whichever is more: the first notices a change at once, and only the
//     second can tell one in a thousand from none (it begins anew when typical has doubled or halved). When nobody was
//     answered for half the time that they took, and then kStill connections at once, the upstream stood still: that is no
//     late answer, and pooled connections would not have helped.
//
// The rules
//   * A class rides when enough is known of it (2 kKnown answers), its share of late answers is at most kRisk, and its
//     pace lets kWorth of them wait within wait_max: fewer save too little for what they wait. Otherwise it takes pooled
//     connections: it is never in front of a quick one.
//   * It rides on a socket where by expectation the others take at most wait_max, the risk that one of those in front
//     turns out late is at most kRisk in all, and the front is not late already. So of a hundred quick requests less
//     than one meets a late one, which is what keeps their p99.
//   * wait_max is not all. An upstream with one thread that is busy lets a pooled request wait for its turn as well, and
//     pipelining costs nothing: that shows when many answers come in the time that one alone takes (the pace is at most
//     alone / kWorth). Then the wait may be a quarter longer than alone is: as many again wait as do now, and some more,
//     so that their number can grow as far as `depth`.
//   * And where outrider's own loop is what requests wait for, those that ride make its turns shorter for all. They leave at
//     the end of the turn in which they came and are answered during the next, so that they are read in the one behind it:
//     their wait may be kTurns of them, however little the upstream needs.
//   * The pace can only be seen by pipelining. A class that is known, alike, and at most kProbeAlone alone, is probed:
//     for kProbeAnswers answers it may ride up to kProbeDepth deep. A probe that fails is repeated after kProbeFirst,
//     doubling up to kProbeMost. In the same way one request in kAloneEvery is sent on a pooled connection if nothing
//     else has told how long alone takes.
//   * The least loaded socket first (by expected wait). Another is opened, up to `connections`, as long as none is idle;
//     when none will do, pooled; kWait only if the caller has no pooled connection to give.
//
// What to expect (ChannelDepthSimulation in tests/filters prints it): 64 clients of an upstream with one thread, 100 us
// a request: 30 requests a write, nobody slower than with pooled connections. One answer in twenty 20 ms late: all
// pooled. An upstream whose connections really run side by side, 100 us each: 20 deep, so up to wait_max slower than a
// connection of one's own; that is the price of the setting.
//
// Invariants
//   * No more than `depth` ride on a socket, and never behind a front that is late.
//   * A class with a late share above kRisk rides in front of nobody.
// choose() is O(sockets), everything else O(1); no allocation but for a ride's entry.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <unordered_map>
#include <vector>

#include "base/time.h"

namespace outrider::policy {

struct DepthLimits {
    std::size_t connections = 2;  // sockets
    std::size_t depth = 64;       // in flight on one
    Duration wait_max = std::chrono::milliseconds(2);
    Duration turn{};  // how long a turn of the caller's loop takes, from one poll to the next
};

class ChannelDepth {
  public:
    static constexpr std::uint32_t kKnown = 64;
    static constexpr double kRisk = 0.005;
    static constexpr double kLateTimes = 4;
    static constexpr Duration kLateLeast = std::chrono::milliseconds(1);
    static constexpr double kWorth = 4;
    static constexpr double kTurns = 3;
    static constexpr std::uint32_t kStill = 4;
    static constexpr Duration kProbeAlone = std::chrono::milliseconds(10);
    static constexpr std::size_t kProbeDepth = 8;
    static constexpr std::uint32_t kProbeAnswers = 32;
    static constexpr Duration kProbeFirst = std::chrono::seconds(1);
    static constexpr Duration kProbeMost = std::chrono::seconds(32);
    static constexpr Duration kAloneEvery = std::chrono::seconds(1);
    static constexpr std::size_t kClassesMax = 256;  // those beyond share the last one

    using Class = std::uint32_t;
    using Socket = std::uint32_t;  // the caller's number of an open socket; may be used again after close()

    explicit ChannelDepth(DepthLimits limits) : limits_(limits) {}
    void configure(DepthLimits limits) { limits_ = limits; }

    // A socket begins to be used, or is gone: what rode on it is forgotten.
    void open(Socket socket);
    void close(Socket socket);
    // A socket that its Channel takes no request on is passed over.
    void set_accepting(Socket socket, bool accepting);

    struct Choice {
        enum class Where : std::uint8_t { kSocket, kOpen, kPooled, kWait };
        Where where = Where::kPooled;
        Socket socket{};  // with kSocket
    };
    // `pooled`: there is a pooled connection to be had. A socket that is being opened counts as open.
    Choice choose(Class cls, Instant now, bool pooled);

    // It is sent on that socket, behind what rides there.
    void ride(Socket socket, Class cls, Instant now);
    // The front of the socket was answered whole. `counts`: it says something about the upstream (not when the client
    // read slowly).
    void answered(Socket socket, Instant now, bool counts = true);
    // A request on a connection of its own was answered after `latency`.
    void answered_alone(Class cls, Duration latency, Instant now);

    struct Estimate {
        std::uint32_t answers = 0;
        Duration alone{};
        Duration typical{};
        Duration pace{};
        double late = 0;
        bool rides = false;
    };
    Estimate estimate(Class cls) const;
    std::size_t in_flight(Socket socket) const;

  private:
    // A mean that forgets: of the first samples the plain one, then each counts 1 / memory.
    struct Mean {
        double value = 0;
        std::uint32_t count = 0;
        void add(double sample, std::uint32_t memory, std::uint32_t weight = 1);
    };
    struct Learnt {
        Mean alone;      // ns
        Mean pace;       // ns
        Mean late_soon;  // 0 to 1
        Mean late_long;
        double late() const { return std::max(late_soon.value, late_long.value); }
        double late_typical = 0;  // what late_long goes by
        struct {
            std::uint32_t answers = 0;
            std::uint32_t late = 0;
            std::uint32_t after_silence = 0;  // of the late ones
        } seen;                               // at the latest instant; not counted yet
        double typical = 0;
        std::uint32_t typical_count = 0;
        Instant alone_at{};    // the last sample
        Instant probe_from{};  // no probe before
        Duration probe_pause = kProbeFirst;
        std::uint32_t probe_left = 0;  // answers of the probe under way
    };
    struct Ride {
        Class cls{};
        float risk = 0;
        double wait = 0;  // ns; its share of the socket's sums
        bool alone = false;
        Instant sent{};
    };
    struct Burst {  // answers seen at one instant
        Instant at{};
        double passed = 0;   // since the answer before
        bool alone = false;  // the first of them had an idle socket
        Class cls{};         // of the first
        std::uint32_t count = 0;
    };
    struct Line {
        Socket socket{};
        bool accepting = true;
        std::deque<Ride> rides;
        double wait = 0;
        double risk = 0;
        Instant front_since{};
        Burst burst;
    };

    Learnt& of(Class cls);
    const Learnt* find(Class cls) const;
    Line* line(Socket socket);
    bool paces(const Learnt& learnt) const;
    bool may_ride(Learnt& learnt, Instant now);
    double wait_bound(const Learnt& learnt) const;
    bool fits(const Line& line, const Learnt& learnt, Instant now) const;
    void learn_alone(Learnt& learnt, double latency, Instant now);
    void end_burst(Line& line);
    void learn_late(Learnt& learnt, double latency);
    void see(Instant now);
    void count_seen();
    static void count_late(Learnt& learnt, std::uint32_t late, std::uint32_t answers);
    void learn_pace(Learnt& learnt, double pace, std::uint32_t answers, Instant now);

    DepthLimits limits_;
    std::vector<Line> lines_;
    std::unordered_map<Class, Learnt> classes_;
    struct {  // the latest instant at which something was answered
        Instant at{};
        double silence = 0;  // ns, before it
        std::uint32_t connections = 0;
        std::vector<Learnt*> classes;
    } seen_;
};

}  // namespace outrider::policy
