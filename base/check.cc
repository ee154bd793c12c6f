#include "base/check.h"

#include <cstdio>
#include <cstdlib>

namespace outrider {

void require_failed(const char* sentence, const char* file, int line) {
    std::fprintf(stderr, "outrider: invariant broken: %s (%s:%d)\n", sentence, file, line);
    std::fflush(stderr);
    std::abort();
}

}  // namespace outrider
