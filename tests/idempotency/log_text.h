// What the application log says while one of these lives.
#pragma once

#include <cstddef>
#include <memory>
#include <sstream>
#include <string>

#include <spdlog/sinks/ostream_sink.h>
#include <spdlog/spdlog.h>

namespace outrider::idempotency::test {

class LogText {
  public:
    LogText() : before_(spdlog::default_logger()) {
        spdlog::set_default_logger(
            std::make_shared<spdlog::logger>("", std::make_shared<spdlog::sinks::ostream_sink_mt>(text_)));
    }
    ~LogText() { spdlog::set_default_logger(before_); }
    std::string text() const { return text_.str(); }
    std::size_t count(const std::string& what) const {
        const std::string all = text();
        std::size_t n = 0;
        for (auto at = all.find(what); at != std::string::npos; at = all.find(what, at + 1))
            ++n;
        return n;
    }

  private:
    std::ostringstream text_;
    std::shared_ptr<spdlog::logger> before_;
};

}  // namespace outrider::idempotency::test
