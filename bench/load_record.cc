#include "bench/load_record.h"

#include "bench/net.h"

namespace outrider::bench {

RequestRecord::RequestRecord(const std::string& path) {
    if (path.empty()) return;
    file_.reset(std::fopen(path.c_str(), "we"));
    if (!file_) die("cannot write " + path);
}

void RequestRecord::add(std::uint64_t due_ns, std::uint64_t ended_ns, int status) {
    if (!file_) return;
    std::fprintf(file_.get(), "%llu %llu %d\n", static_cast<unsigned long long>(due_ns),
                 static_cast<unsigned long long>(ended_ns > due_ns ? ended_ns - due_ns : 0), status);
}

void RequestRecord::close() {
    if (file_ && std::fflush(file_.get()) != 0) die("cannot write the record");
    file_.reset();
}

}  // namespace outrider::bench
