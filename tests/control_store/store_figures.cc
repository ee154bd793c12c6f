// No test: what the store does on one core, and what a key takes in memory. store_figures [KEYS]
#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <fstream>

#include <unistd.h>

#include "base/random.h"
#include "control/store/watch_hub.h"
#include "tests/control_store/commands.h"

namespace {
using namespace outrider;
using namespace outrider::store;
using namespace outrider::store::test;

double resident_bytes() {
    std::ifstream file("/proc/self/statm");
    double total = 0;
    double resident = 0;
    file >> total >> resident;
    return resident * static_cast<double>(sysconf(_SC_PAGESIZE));
}

// Of this process's processor time, so that what else the machine does counts little.
class Timer {
  public:
    double seconds() const { return static_cast<double>(std::clock() - begin_) / CLOCKS_PER_SEC; }

  private:
    std::clock_t begin_ = std::clock();
};

std::string key_of(std::uint64_t n) {
    char text[32];
    std::snprintf(text, sizeof text, "registry/svc/%010" PRIu64, n);
    return text;
}

template <typename F>
void rate(const char* what, std::uint64_t count, F&& f) {
    const Timer timer;
    for (std::uint64_t i = 0; i < count; ++i)
        f(i);
    const double s = timer.seconds();
    std::printf("%-44s %10.0f /s  (%.2f us)\n", what, static_cast<double>(count) / s,
                s * 1e6 / static_cast<double>(count));
}

void snapshots(Driver& apply) {
    const Timer writing;
    std::string bytes = snapshot(*apply.store);
    const double write_seconds = writing.seconds();
    const Timer reading;
    const auto copy = restore(bytes);
    const double read_seconds = reading.seconds();
    const double mib = static_cast<double>(bytes.size()) / (1 << 20);
    std::printf("snapshot: %.1f MiB, written at %.0f MiB/s, restored at %.0f MiB/s\n", mib,
                mib / write_seconds, mib / read_seconds);
    const Timer hashing;
    const std::uint64_t hash = apply.store->hash(apply.store->revision());
    std::printf("hash %016" PRIx64 " in %.0f ms\n", hash, hashing.seconds() * 1e3);
}

void watches(Driver& apply, std::uint64_t keys, std::uint64_t watchers) {
    WatchHub hub;
    for (std::uint64_t i = 0; i < watchers; ++i) {
        WatchRequest request;
        request.range = {key_of(i * 7 % keys), {}};
        hub.add(*apply.store, std::move(request));
    }
    Random random(3);
    std::uint64_t events = 0;
    const std::string value(100, 'w');
    rate("put with 10,000 watchers of one key each", 200'000, [&](std::uint64_t) {
        hub.applied(apply(put(key_of(random.below(keys)), value)).events);
        while (const auto id = hub.next_ready())
            events += hub.poll(*apply.store, *id).events.size();
    });
    std::printf("  events delivered: %" PRIu64 "\n", events);
}

}  // namespace

int main(int argc, char** argv) {
    const std::uint64_t keys = argc > 1 ? std::strtoull(argv[1], nullptr, 10) : 1'000'000;
    const std::string value(100, 'v');
    Random random(1);
    Driver apply;
    const double before = resident_bytes();
    rate("put of a new key (23 B) and 100 B, ascending", keys,
         [&](std::uint64_t i) { apply(put(key_of(i), value)); });
    const auto per_key = [&] { return (resident_bytes() - before) / static_cast<double>(keys); };
    std::printf("  memory: %.0f bytes a key with its history entry\n", per_key());
    apply(CompactRequest{apply.store->revision()});
    std::printf("  memory: %.0f bytes a key after compaction (counted: %.0f)\n", per_key(),
                static_cast<double>(apply.store->bytes()) / static_cast<double>(keys));
    rate("put of a random key of these", keys,
         [&](std::uint64_t) { apply(put(key_of(random.below(keys)), value)); });
    rate("range of one key", keys, [&](std::uint64_t) {
        if (apply.store->range(get(key_of(random.below(keys))), {}).response.count != 1) std::abort();
    });
    rate("range of 100 keys", 20'000, [&](std::uint64_t) {
        RangeRequest r = get(key_of(random.below(keys)), std::string(1, '\0'));
        r.range.end = key_of(random.below(keys));
        r.range.end = key_of(std::strtoull(r.range.key.c_str() + 13, nullptr, 10) + 100);
        apply.store->range(r, {});
    });
    const Timer compacting;
    apply(CompactRequest{apply.store->revision()});
    std::printf("compaction of %" PRIu64 " revisions: %.0f ms\n", keys, compacting.seconds() * 1e3);
    snapshots(apply);
    watches(apply, keys, 10'000);
    return 0;
}
