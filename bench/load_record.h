// Every request of an open loop as a line of a file, so that the reader can cut the run into phases and
// find exact quantiles of each.
//
// A line: when the request was due (nanoseconds of CLOCK_MONOTONIC), nanoseconds from then to the end of its
// answer, the status. Status 0: its connection was refused or lost. Status -1: no answer when the run ended.
#pragma once

#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>

namespace outrider::bench {

class RequestRecord {
  public:
    static constexpr int kLost = 0;
    static constexpr int kUnanswered = -1;

    // An empty path: records nothing. Ends the process when the file cannot be made.
    explicit RequestRecord(const std::string& path);

    void add(std::uint64_t due_ns, std::uint64_t ended_ns, int status);
    // Ends the process when not everything could be written.
    void close();

  private:
    struct Close {
        void operator()(std::FILE* file) const { std::fclose(file); }
    };
    std::unique_ptr<std::FILE, Close> file_;
};

}  // namespace outrider::bench
