#include "tests/sim/profile.h"

namespace outrider::sim {
using namespace std::chrono_literals;
namespace {

Duration between(Random& random, Duration low, Duration high) {
    return low + Duration(static_cast<std::int64_t>(
                     random.below(static_cast<std::uint64_t>((high - low).count()) + 1)));
}

bool one_in(Random& random, std::uint64_t n) {
    return random.below(n) == 0;
}

void draw_cluster(Profile& profile, Random& random) {
    constexpr std::uint64_t kFounders[] = {3, 3, 3, 3, 3, 3, 5, 5, 2, 4, 1};
    profile.founders = kFounders[random.below(std::size(kFounders))];
    profile.members_max = profile.founders + random.below(3);
    raft::Options& options = profile.options;
    options.election_timeout = between(random, 100ms, 300ms);
    options.heartbeat = options.election_timeout / static_cast<std::int64_t>(3 + random.below(6));
    options.lease_reads = one_in(random, 2);
    constexpr double kUncertainty[] = {0, 0.01, 0.1, 0.25};
    options.clock_uncertainty = kUncertainty[random.below(4)];
    profile.clock_rate_error = options.clock_uncertainty;
    if (one_in(random, 2)) {
        options.message_entries_max = 1 + random.below(3);
        options.inflight_messages_max = 1 + random.below(4);
    }
    options.reads_max = 1 + random.below(8);
    profile.chunk_bytes = 16 << random.below(4);
    options.warm.entries = profile.chunk_bytes / 4;  // most of the log is cold
}

void draw_world(Profile& profile, Random& random) {
    profile.delay_min = between(random, 100us, 1ms);
    profile.delay_max = profile.delay_min + between(random, 100us, one_in(random, 4) ? 40ms : 4ms);
    if (one_in(random, 2)) profile.late = 0.02 * random.unit();
    if (one_in(random, 2)) profile.loss = (one_in(random, 3) ? 0.3 : 0.05) * random.unit();
    if (one_in(random, 2)) profile.duplicate = 0.1 * random.unit();
    profile.sync_min = between(random, 50us, 1ms);
    profile.sync_max = profile.sync_min + between(random, 100us, one_in(random, 3) ? 50ms : 3ms);
    // Every vote comes late.
    if (one_in(random, 20)) profile.sync_max = 3 * profile.options.election_timeout;
    if (one_in(random, 4)) profile.sync_error = 0.002 * random.unit();
    profile.clients = 1 + random.below(5);
    profile.think_max = between(random, 2ms, 60ms);
    profile.read_percent = 20 + random.below(60);
}

// Leases break in a corner that a wide draw hardly meets: clocks apart as far as is allowed, a leader that is cut off and
// asked on, others that go on at once.
void focus_on_leases(Profile& profile, Random& random) {
    profile.founders = profile.members_max = 3;
    profile.options.lease_reads = true;
    // Without uncertainty leases last longest.
    profile.options.clock_uncertainty = profile.clock_rate_error = one_in(random, 3) ? 0 : 0.25;
    profile.options.election_timeout = 200ms;
    profile.options.heartbeat = between(random, 20ms, 60ms);
    profile.options.reads_max = 100;
    profile.one_slow_clock = one_in(random, 2);
    profile.delay_min = 100us;
    profile.delay_max = between(random, 200us, 2ms);
    profile.loss = one_in(random, 2) ? 0 : 0.1;
    profile.sync_min = 50us;
    profile.sync_max = 500us;
    profile.clients = 5;
    profile.think_max = 5ms;
    profile.read_percent = 70;
    profile.harm_every = between(random, 30ms, 200ms);
    profile.partition = random.below(8);
    profile.one_way = random.below(8);
    profile.heal = 3;
    profile.crash = random.below(8);
    profile.transfer = profile.one_slow_clock ? 3 + random.below(6) : random.below(8);
    profile.reset = random.below(8);
    profile.crash_all = profile.pause = profile.membership = profile.compact = profile.burst = 0;
    if (!one_in(random, 3)) return;
    // Little traffic and slow heartbeats, so that a node that restarts does not hear the leader at once.
    profile.options.heartbeat = 100ms;
    profile.options.clock_uncertainty = profile.clock_rate_error = 0;
    profile.loss = 0;
    profile.clients = 4;
    profile.think_max = between(random, 10ms, 60ms);
    profile.read_percent = 95;
    profile.partition = 0;
    profile.one_way = 4;
    profile.crash = 8;
    // A node that has lost the leader asks the third again and again, also just when that one has started anew.
    profile.cut_links = one_in(random, 2);
    if (!profile.cut_links) return;
    profile.harm_every = between(random, 100ms, 400ms);
    profile.transfer = profile.reset = 0;
}

// The shortest lease lasts two seconds: fewer requests over a longer time, pauses that leases do not survive, and in half of
// the seeds little else.
void focus_on_holders(Profile& profile, Random& random) {
    profile.holders = 2 + random.below(2);
    profile.clients = random.below(2);
    profile.watchers = random.below(2);
    profile.think_max = 500ms;
    profile.harm_every = between(random, 100ms, 1s);
    profile.pause_max = 2500ms;
    profile.duration = 12s;
    profile.stall = 1 + random.below(4);
    if (one_in(random, 2)) return;
    profile.holders_at_home = true;
    profile.founders = profile.members_max = 3;
    profile.options.clock_uncertainty = profile.clock_rate_error = one_in(random, 4) ? 0.25 : 0;
    profile.harm_every = between(random, 400ms, 1500ms);
    profile.sync_max = one_in(random, 2) ? Duration(5ms) : profile.options.election_timeout / 2;
    profile.sync_min = 50us;
    profile.late = profile.loss = 0;
    profile.options.election_timeout = 100ms;
    profile.options.heartbeat = 20ms;
    profile.pause = 8;
    profile.partition = random.below(3);
    profile.heal = 4;
    profile.stall = random.below(2);
    profile.transfer = random.below(2);
    profile.one_way = profile.crash = profile.crash_all = profile.membership = profile.burst =
        profile.compact = profile.reset = 0;
    if (!one_in(random, 2)) return;
    // A leader sleeps until another has begun, is asked by a holder before it hears of that, and the holder is silent then.
    profile.home_silence = between(random, 200ms, 1s);
    profile.holders = 3;
    profile.sync_max = 5ms;
    profile.sync_error = 0;
    profile.harm_every = between(random, 1000ms, 2s);
    profile.pause_leaders = true;
    profile.pause_min = 600ms;
    profile.pause_max = 1900ms;
    profile.partition = profile.stall = profile.transfer = 0;
    profile.heal = 2;
}

}  // namespace

Profile Profile::drawn(Random& random) {
    Profile profile;
    draw_cluster(profile, random);
    draw_world(profile, random);
    profile.duration = 4s;
    profile.harm_every = between(random, 20ms, 400ms);
    profile.pause_max = 3 * profile.options.election_timeout;
    // Each seed leaves about half of the kinds of harm out, so that they do not hide each other.
    const auto weight = [&random](std::uint64_t most) {
        return one_in(random, 2) ? 0 : 1 + random.below(most);
    };
    profile.partition = weight(10);
    profile.one_way = weight(6);
    profile.heal = 1 + random.below(12);
    profile.crash = weight(8);
    profile.crash_all = weight(2);
    profile.pause = weight(6);
    profile.transfer = weight(5);
    profile.membership = weight(10);
    profile.compact = weight(10);
    profile.burst = weight(6);
    profile.reset = weight(6);
    if (one_in(random, 5)) focus_on_leases(profile, random);
    return profile;
}

Profile Profile::drawn_key_space(Random& random) {
    Profile profile = drawn(random);
    profile.chunk_bytes = 512 << random.below(4);
    profile.clients = 1 + random.below(4);
    profile.watchers = random.below(5);
    profile.value_bytes = one_in(random, 6) ? 1000 : 16;
    profile.compact_per_mille = one_in(random, 3) ? 0 : 1 + random.below(100);
    if (one_in(random, 2)) profile.answer_loss = 0.1 * random.unit();
    profile.watch_break = between(random, 100ms, 2s);
    profile.watch_slow = one_in(random, 2) ? 0 : 0.2 * random.unit();
    profile.progress_every = between(random, 50ms, 1s);
    profile.batch_bytes = one_in(random, 2) ? 1 + random.below(100) : 64 << 10;
    profile.scan_max = one_in(random, 2) ? 1 + random.below(10) : 1000;
    profile.sessions_age = one_in(random, 10);
    profile.duration = 3s;
    profile.stall = one_in(random, 3) ? 1 + random.below(3) : 0;
    if (one_in(random, 5)) focus_on_holders(profile, random);
    return profile;
}

Profile Profile::calm() {
    Profile profile;
    profile.options.election_timeout = 1s;
    profile.options.heartbeat = 100ms;
    profile.duration = 600s;
    profile.delay_min = 200us;
    profile.delay_max = 1ms;
    profile.sync_min = 500us;
    profile.sync_max = 2ms;
    profile.clients = 2;
    profile.think_max = 200ms;
    profile.harm_every = 10s;
    profile.compact = 1;
    profile.watchers = 2;
    profile.value_bytes = 100;
    profile.compact_per_mille = 5;
    profile.watch_break = 100s;
    profile.progress_every = 10s;
    profile.batch_bytes = 64 << 10;
    profile.scan_max = 1000;
    return profile;
}

}  // namespace outrider::sim
