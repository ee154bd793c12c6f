// ctl watch: events as they come, over disconnects and compactions, until Ctrl-C.
#include <csignal>

#include "base/uv/acceptor.h"
#include "cli/ctl_run.h"
#include "control/agent/watch.h"

namespace outrider::cli {
namespace {

struct WatchArguments {
    std::string key;
    std::string end;
    bool prefix = false;
    bool previous = false;
    bool state = false;
    std::int64_t revision = 0;
    std::int64_t count = 0;

    agent::WatchOptions options(Duration timeout) const {
        agent::WatchOptions out;
        out.check_timeout = timeout / 2;
        out.cursor.range.key = key.empty() ? std::string(1, '\0') : key;
        out.cursor.range.end = prefix ? agent::prefix_end(key) : end;
        out.cursor.first = state          ? agent::WatchCursor::First::kState
                           : revision > 0 ? agent::WatchCursor::First::kRevision
                                          : agent::WatchCursor::First::kNow;
        out.cursor.revision = {revision};
        out.cursor.prev_kv = previous;
        return out;
    }
};

class WatchRun {
  public:
    WatchRun(CtlRun& run, const WatchArguments& arguments)
        : run_(run),
          arguments_(arguments),
          watch_(
              run.client(), arguments.options(run.options().timeout_value()),
              [this](const agent::WatchUpdate& update) { show(update); },
              [this](const std::string& reason) { trouble(reason); }),
          signals_(run.loop(), {SIGINT, SIGTERM}, [this](int) { run_.finish(); }) {
        // A watch that stands goes on for ever; one that never came to stand is a failure.
        run.loop().after(run.options().timeout_value(), [this] {
            if (!watch_.ever_streamed()) run_.fail("no endpoint answered: " + last_trouble_);
        });
    }

  private:
    void show(const agent::WatchUpdate& update) {
        std::string text;
        const bool lost = update.why == agent::WatchUpdate::Why::kCompacted ||
                          update.why == agent::WatchUpdate::Why::kHistoryLost;
        if (lost) {
            std::fprintf(stderr, "outrider ctl: %s; what follows is how the keys differ at revision %lld\n",
                         update.why == agent::WatchUpdate::Why::kCompacted
                             ? "events were compacted before they came"
                             : "the cluster has lost history",
                         static_cast<long long>(update.revision.value));
        }
        for (const v3::Event& event : update.events) {
            text += run_.json() ? agent::to_json(event) + "\n" : line_of(event);
            if (arguments_.count != 0 && ++shown_ == arguments_.count) break;
        }
        run_.print(text);
        if (arguments_.count != 0 && shown_ >= arguments_.count) run_.finish();
    }
    static std::string line_of(const v3::Event& event) {
        const bool deleted = event.type() == v3::Event::DELETE;
        std::string line = (deleted ? "DELETE " : "PUT    ") + std::to_string(event.kv().mod_revision()) +
                           "  " + printable(event.kv().key());
        if (!deleted) line += "  " + printable(event.kv().value());
        if (event.has_prev_kv()) line += "  (before: " + printable(event.prev_kv().value()) + ")";
        return line + "\n";
    }
    // Once for a row of failures: the watch tries again by itself.
    void trouble(const std::string& reason) {
        const bool known = std::exchange(last_trouble_, reason) == reason;
        if (watch_.ever_streamed() && !known)
            std::fprintf(stderr, "outrider ctl: the watch goes on after: %s\n", reason.c_str());
    }

    CtlRun& run_;
    const WatchArguments& arguments_;
    agent::Watch watch_;
    uv::Signals signals_;
    std::string last_trouble_;
    std::int64_t shown_ = 0;
};

}  // namespace

void add_ctl_watch(CLI::App& ctl, const CtlOptionsPtr& options) {
    auto arguments = std::make_shared<WatchArguments>();
    auto* watch = ctl.add_subcommand("watch", "Print changes of a key or a range as they come, until Ctrl-C")
                      ->fallthrough();
    watch->add_option("key", arguments->key, "The key, or the first of a range")->required();
    auto* end = watch->add_option("end", arguments->end, "The first key behind the range");
    watch->add_flag("--prefix", arguments->prefix, "Every key that begins so (of \"\": every key)")
        ->excludes(end);
    auto* revision =
        watch->add_option("--revision", arguments->revision, "Begin with the changes of this revision")
            ->check(whole_number(1));
    watch->add_flag("--state", arguments->state, "Begin with the keys as they are, each as a PUT")
        ->excludes(revision);
    watch->add_flag("--previous", arguments->previous, "With what was there before");
    watch->add_option("--count", arguments->count, "End after so many changes")->check(whole_number(1));
    watch->callback([arguments, options] {
        CtlRun run(*options);
        std::unique_ptr<WatchRun> watching;
        *options->code = run.run([&] { watching = std::make_unique<WatchRun>(run, *arguments); });
    });
}

}  // namespace outrider::cli
