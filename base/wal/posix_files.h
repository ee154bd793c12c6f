// The file system of the machine. Every descriptor is close-on-exec; EINTR is never seen by the caller.
#pragma once

#include "base/wal/files.h"

namespace outrider::wal {

// Without state: any thread may use it.
FileSystem& posix_files();

}  // namespace outrider::wal
