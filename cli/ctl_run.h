// One run of a `ctl` command: a loop, a client, and an exit code. And how results are printed.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "cli/ctl.h"
#include "control/agent/client.h"

namespace outrider::cli {

namespace v3 = outrider::control::v3;

class CtlRun {
  public:
    explicit CtlRun(const CtlOptions& options);
    ~CtlRun();

    // Calls `begin`, turns the loop until finish() and returns its code.
    int run(const std::function<void()>& begin);
    void finish(int code = 0);
    // The reason goes to stderr.
    void fail(const std::string& reason);

    // A call that must succeed: otherwise the run ends with the reason. `done` gets the answer.
    template <typename Request>
    void ask(const Request& request,
             std::function<void(const typename agent::Rpc<Request>::Response&)> done) {
        using Response = typename agent::Rpc<Request>::Response;
        client().call(request, call_options(),
                      [this, done = std::move(done)](const agent::Reply<Response>& reply) {
                          if (reply.ok()) {
                              done(reply.body);
                          } else {
                              fail(reason_of(reply));
                          }
                      });
    }
    // The same, and with --json the answer is printed and nothing else.
    template <typename Request>
    void show(const Request& request,
              std::function<void(const typename agent::Rpc<Request>::Response&)> done) {
        ask(request, [this, done = std::move(done)](const typename agent::Rpc<Request>::Response& response) {
            if (json()) {
                print(agent::to_json(response) + "\n");
                finish();
            } else {
                done(response);
            }
        });
    }
    // Why a reply is not ok, for people.
    template <typename Response>
    static std::string reason_of(const agent::Reply<Response>& reply) {
        return reason_of(reply.outcome, reply.code, reply.endpoint, reply.reason);
    }
    static std::string reason_of(agent::Outcome outcome, int code, const std::string& endpoint,
                                 const std::string& reason);

    agent::Client& client() { return *client_; }
    uv::Loop& loop() { return loop_; }
    const CtlOptions& options() const { return options_; }
    bool json() const { return options_.json; }
    agent::CallOptions call_options() const;

    // To stdout, at once. The run ends when nobody reads it.
    void print(std::string_view text);

  private:
    CtlOptions options_;
    uv::Loop loop_;
    std::unique_ptr<agent::Client> client_;
    std::function<void()> begin_;
    bool finished_ = false;
    int code_ = 0;
};

// Columns as wide as their widest cell, two spaces between; the first row is the heading.
class Table {
  public:
    explicit Table(std::vector<std::string> heading) : rows_{std::move(heading)} {}
    void add(std::vector<std::string> row) { rows_.push_back(std::move(row)); }
    bool empty() const { return rows_.size() == 1; }
    std::string text() const;

  private:
    std::vector<std::vector<std::string>> rows_;
};

// A key or a value as text for people: what is not printable UTF-8 as \xNN.
std::string printable(std::string_view bytes);
// Ids of members and leases as people see them: 0x and 16 hexadecimal digits.
std::string hex_id(std::uint64_t id);
// So, or decimal, as the API's JSON has them.
std::optional<std::uint64_t> parse_id(std::string_view text);
std::string check_id(const std::string& text);  // for CLI11: empty, or what is wrong
// For CLI11: whole numbers from `least` on.
CLI::Validator whole_number(std::int64_t least, const std::string& unit = {});

}  // namespace outrider::cli
