// Whether what a client was told is what happened: chronicle.h says what that means.
#pragma once

#include "tests/sim/caller.h"
#include "tests/sim/key_space.h"

namespace outrider::sim {

// `floor`: Chronicle::known() when the request began.
void check_read(KeySpace& space, const Request& request, const Answer& answer, store::Revision floor);
// Of a put, deletion, transaction or compaction. What a session does not know any more may have happened or not.
void check_write(KeySpace& space, const Request& request, const Answer& answer, store::Revision floor);

}  // namespace outrider::sim
