#include <gtest/gtest.h>

#include "base/uv/acceptor.h"

namespace outrider::uv {
namespace {

TEST(CpuMax, IsTheQuotaInProcessorsRoundedUp) {
    const struct {
        const char* line;
        std::optional<unsigned> processors;
    } rows[] = {
        {"50000 100000", 1},
        {"100000 100000", 1},
        {"100001 100000", 2},
        {"400000 100000", 4},
        {"1000 100000", 1},
        {"max 100000", {}},
        {"-1 100000", {}},
        {"0 100000", {}},
        {"100000 0", {}},
        {"", {}},
        {" ", {}},
        {"100000", {}},
        {"nonsense 100000", {}},
        {"99999999999 1", 4096},
    };
    for (const auto& row : rows)
        EXPECT_EQ(parse_cpu_max(row.line), row.processors) << row.line;
}

TEST(ProcessorCount, IsAtLeastOne) {
    EXPECT_GE(processor_count(), 1u);
}

}  // namespace
}  // namespace outrider::uv
