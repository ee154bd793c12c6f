#include "filters/policy/channel_depth.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "base/check.h"

namespace outrider::policy {
namespace {

constexpr std::uint32_t kMeanMemory = 64;
constexpr std::uint32_t kLateSoonMemory = 512;
constexpr std::uint32_t kLateLongMemory = 4096;
// The steps of `typical`, a stochastic approximation of a quantile on a logarithmic scale.
constexpr double kTypicalQuantile = 0.25;
constexpr double kTypicalStep = 0.08;
constexpr double kTypicalFirstStep = 2;
// How much longer than alone a request may wait where all that wait come in the time of one: the more there are, the less each takes, so that
// their number could not grow if they might take just as long.
constexpr double kBunchedSlack = 1.25;

double nanos(Duration d) {
    return static_cast<double>(d.count());
}
Duration duration(double ns) {
    return Duration(static_cast<Duration::rep>(ns));
}
double late_after(double typical) {
    return std::max(nanos(ChannelDepth::kLateLeast), ChannelDepth::kLateTimes * typical);
}

}  // namespace

void ChannelDepth::Mean::add(double sample, std::uint32_t memory, std::uint32_t weight) {
    count = std::min(count + weight, std::max(memory, weight));
    value += (sample - value) * weight / count;
}

void ChannelDepth::open(Socket socket) {
    require(line(socket) == nullptr, "a socket is opened once");
    lines_.emplace_back().socket = socket;
}

void ChannelDepth::close(Socket socket) {
    std::erase_if(lines_, [socket](const Line& l) { return l.socket == socket; });
}

void ChannelDepth::set_accepting(Socket socket, bool accepting) {
    if (Line* l = line(socket)) l->accepting = accepting;
}

ChannelDepth::Line* ChannelDepth::line(Socket socket) {
    for (Line& l : lines_) {
        if (l.socket == socket) return &l;
    }
    return nullptr;
}

std::size_t ChannelDepth::in_flight(Socket socket) const {
    for (const Line& l : lines_) {
        if (l.socket == socket) return l.rides.size();
    }
    return 0;
}

ChannelDepth::Learnt& ChannelDepth::of(Class cls) {
    const auto found = classes_.find(cls);
    if (found != classes_.end()) return found->second;
    if (classes_.size() >= kClassesMax) return classes_[std::numeric_limits<Class>::max()];
    return classes_[cls];
}

const ChannelDepth::Learnt* ChannelDepth::find(Class cls) const {
    auto found = classes_.find(cls);
    if (found == classes_.end()) found = classes_.find(std::numeric_limits<Class>::max());
    return found == classes_.end() ? nullptr : &found->second;
}

double ChannelDepth::wait_bound(const Learnt& learnt) const {
    const double bound = std::max(nanos(limits_.wait_max), kTurns * nanos(limits_.turn));
    const bool bunched = learnt.pace.value * kWorth <= learnt.alone.value;
    return bunched ? std::max(bound, kBunchedSlack * learnt.alone.value) : bound;
}

bool ChannelDepth::paces(const Learnt& learnt) const {
    return learnt.pace.count >= kProbeAnswers && learnt.pace.value * kWorth <= wait_bound(learnt);
}

bool ChannelDepth::may_ride(Learnt& learnt, Instant now) {
    if (learnt.typical_count < 2 * kKnown) return false;
    if (learnt.late() > kRisk) {
        learnt.pace = {};  // what they were before is not what they will be then
        learnt.probe_left = 0;
        return false;
    }
    if (learnt.probe_left > 0 || paces(learnt)) return true;
    if (learnt.alone.value > nanos(kProbeAlone) || now < learnt.probe_from) return false;
    learnt.pace = {};
    learnt.probe_left = kProbeAnswers;
    return true;
}

bool ChannelDepth::fits(const Line& line, const Learnt& learnt, Instant now) const {
    if (!line.accepting) return false;
    if (line.rides.empty()) return true;
    if (line.rides.size() >= limits_.depth) return false;
    const Learnt* front = find(line.rides.front().cls);
    const double late = late_after(front == nullptr ? 0 : front->typical);
    if (nanos(now - line.front_since) > late || line.risk > kRisk) return false;
    if (learnt.probe_left > 0) return line.rides.size() < kProbeDepth;
    return line.wait <= wait_bound(learnt);
}

ChannelDepth::Choice ChannelDepth::choose(Class cls, Instant now, bool pooled) {
    using Where = Choice::Where;
    Learnt& learnt = of(cls);
    if (now != seen_.at) count_seen();
    const bool rides = may_ride(learnt, now);
    if (pooled && !rides) return {.where = Where::kPooled};
    if (pooled && now - learnt.alone_at >= kAloneEvery) {
        learnt.alone_at = now;  // one, not all that come until it is answered
        return {.where = Where::kPooled};
    }
    const Line* best = nullptr;
    for (const Line& l : lines_) {
        if (!fits(l, learnt, now) || (!rides && !l.rides.empty())) continue;
        if (best == nullptr || l.wait < best->wait) best = &l;
    }
    const bool idle = best != nullptr && best->rides.empty();
    if (!idle && lines_.size() < limits_.connections) return {.where = Where::kOpen};
    if (best != nullptr) return {.where = Where::kSocket, .socket = best->socket};
    return {.where = pooled ? Where::kPooled : Where::kWait};
}

void ChannelDepth::ride(Socket socket, Class cls, Instant now) {
    Line* l = line(socket);
    require(l != nullptr, "a request rides on an open socket");
    const Learnt& learnt = of(cls);
    Ride ride{.cls = cls, .sent = now};
    ride.alone = l->rides.empty();
    ride.risk = static_cast<float>(learnt.late());
    const bool known = learnt.pace.count >= kProbeAnswers;
    ride.wait = known ? learnt.pace.value : learnt.alone.value;
    if (ride.alone) l->front_since = now;
    l->wait += ride.wait;
    l->risk += ride.risk;
    l->rides.push_back(ride);
}

void ChannelDepth::answered(Socket socket, Instant now, bool counts) {
    Line* l = line(socket);
    require(l != nullptr && !l->rides.empty(), "what is answered rode");
    const Ride ride = l->rides.front();
    l->rides.pop_front();
    l->wait -= ride.wait;
    l->risk -= ride.risk;
    if (l->rides.empty()) l->wait = l->risk = 0;  // no rest of rounding
    const double passed = nanos(now - l->front_since);
    l->front_since = now;
    if (!counts) return;

    see(now);
    Learnt& learnt = of(ride.cls);
    if (ride.alone) {
        learn_alone(learnt, nanos(now - ride.sent), now);
    } else {
        learn_late(learnt, passed);
    }
    if (l->burst.count > 0 && l->burst.at == now) {
        ++l->burst.count;
        return;
    }
    ++seen_.connections;
    end_burst(*l);
    l->burst = {.at = now, .passed = passed, .alone = ride.alone, .cls = ride.cls, .count = 1};
}

void ChannelDepth::answered_alone(Class cls, Duration latency, Instant now) {
    see(now);
    ++seen_.connections;
    learn_alone(of(cls), nanos(latency), now);
}

void ChannelDepth::learn_alone(Learnt& learnt, double latency, Instant now) {
    learnt.alone_at = now;
    latency = std::max(latency, 1.0);
    if (learnt.typical_count == 0) learnt.typical = latency;
    learn_late(learnt, latency);
    learnt.alone.add(latency, kMeanMemory);
    // Large steps at first: the first sample may be one of the slow ones.
    const double step = std::max(kTypicalStep, kTypicalFirstStep / (1 + learnt.typical_count / 4.0));
    learnt.typical *=
        std::exp(latency > learnt.typical ? step * kTypicalQuantile : -step * (1 - kTypicalQuantile));
    learnt.typical_count = std::min(learnt.typical_count + 1, std::numeric_limits<std::uint32_t>::max() - 1);
}

void ChannelDepth::learn_late(Learnt& learnt, double latency) {
    if (learnt.typical_count < kKnown) return;  // it is not known what late is
    if (learnt.seen.answers++ == 0) seen_.classes.push_back(&learnt);
    if (latency <= late_after(learnt.typical)) return;
    ++learnt.seen.late;
    if (seen_.silence >= latency / 2) ++learnt.seen.after_silence;
}

void ChannelDepth::see(Instant now) {
    if (now == seen_.at) return;
    count_seen();
    seen_.silence = nanos(now - seen_.at);
    seen_.at = now;
    seen_.connections = 0;
}

void ChannelDepth::count_seen() {
    const bool stood_still = seen_.connections >= kStill;
    for (Learnt* learnt : seen_.classes) {
        const auto seen = std::exchange(learnt->seen, {});
        count_late(*learnt, seen.late - (stood_still ? seen.after_silence : 0), seen.answers);
    }
    seen_.classes.clear();
}

void ChannelDepth::count_late(Learnt& learnt, std::uint32_t late, std::uint32_t answers) {
    if (learnt.typical > 2 * learnt.late_typical || learnt.typical < learnt.late_typical / 2) {
        learnt.late_long = learnt.late_soon;
        learnt.late_typical = learnt.typical;
    }
    const double share = static_cast<double>(late) / answers;
    learnt.late_soon.add(share, kLateSoonMemory, answers);
    learnt.late_long.add(share, kLateLongMemory, answers);
}

void ChannelDepth::end_burst(Line& l) {
    const Burst& burst = l.burst;
    if (burst.count == 0 || (burst.count == 1 && burst.alone)) return;
    Learnt& learnt = of(burst.cls);
    // A late one is counted as that; it says nothing about the pace of the others.
    const double passed = std::min(burst.passed, late_after(learnt.typical));
    learn_pace(learnt, passed / burst.count, burst.count, burst.at);
}

void ChannelDepth::learn_pace(Learnt& learnt, double pace, std::uint32_t answers, Instant now) {
    learnt.pace.add(pace, kMeanMemory, answers);
    const bool probing = learnt.probe_left > 0;
    learnt.probe_left -= std::min(learnt.probe_left, answers);
    // What is still answered of those that rode before it turned late is no verdict.
    if (learnt.probe_left > 0 || learnt.pace.count < kProbeAnswers) return;
    if (paces(learnt)) {
        learnt.probe_pause = kProbeFirst;
    } else if (probing || learnt.probe_from <= now) {
        learnt.probe_from = now + learnt.probe_pause;
        learnt.probe_pause = std::min(2 * learnt.probe_pause, kProbeMost);
    }
}

ChannelDepth::Estimate ChannelDepth::estimate(Class cls) const {
    const Learnt* learnt = find(cls);
    if (learnt == nullptr) return {};
    return {.answers = learnt->typical_count,
            .alone = duration(learnt->alone.value),
            .typical = duration(learnt->typical),
            .pace = duration(learnt->pace.value),
            .late = learnt->late(),
            .rides = learnt->typical_count >= 2 * kKnown && learnt->late() <= kRisk &&
                     (learnt->probe_left > 0 || paces(*learnt))};
}

}  // namespace outrider::policy
