// One filter on one request, as the chain would call it: a parsed head, settings that the test changes, no loop.
#pragma once

#include <memory>
#include <string>
#include <variant>

#include <gtest/gtest.h>

#include "base/http/http1_parser.h"
#include "filters/filter.h"

namespace outrider::filters::test {

class OneRequest {
  public:
    config::ListenerSettings listener;
    config::RouteSettings route;
    bool keyed = false;  // an idempotency key was found and its store said to go on

    OneRequest() { route.timeout = std::chrono::seconds(15); }

    // `text`: a head with or without its empty line at the end.
    Verdict ask(const Filter& filter, std::string text) {
        if (!text.ends_with("\r\n\r\n")) text += "\r\n\r\n";
        text_ = std::move(text);
        parser_ = std::make_unique<http::Http1Parser>(http::Http1Parser::Side::kRequest, limits_, scratch_);
        const http::Step step = parser_->step(text_);
        EXPECT_EQ(step.kind, http::Step::Kind::kHead) << text_ << parser_->error_reason();
        context = Context();
        context.listener = &listener;
        context.route = &route;
        context.arena = &arena_;
        context.request = &parser_->request();
        if (keyed) context.key.emplace();
        return filter.on_request(context);
    }

    Context context;  // after ask()

  private:
    http::ParserLimits limits_;
    http::ParserScratch scratch_;
    std::unique_ptr<http::Http1Parser> parser_;
    std::string text_;
    Arena arena_;
};

}  // namespace outrider::filters::test
