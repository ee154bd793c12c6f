#include "cli/demo.h"

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <optional>
#include <vector>

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/uv/acceptor.h"
#include "base/uv/loop.h"
#include "cli/admin_client.h"

namespace outrider::cli {

namespace {
using namespace std::chrono_literals;
namespace fs = std::filesystem;

constexpr Duration kReadyIn = 10s;
constexpr Duration kStopIn = 5s;
constexpr Duration kPoll = 50ms;

// A child process that does not outlive us.
struct Child {
    pid_t pid = -1;
    int out = -1;  // its stdout, when asked for
};

Result<Child> start(const std::vector<std::string>& command, bool read_stdout) {
    std::array<int, 2> pipe{-1, -1};
    if (read_stdout && ::pipe2(pipe.data(), O_CLOEXEC) != 0)
        return Error{"no pipe: " + uv::error_text(-errno)};
    std::vector<char*> argv;
    for (const std::string& word : command)
        argv.push_back(const_cast<char*>(word.c_str()));
    argv.push_back(nullptr);
    const pid_t parent = ::getpid();
    const pid_t pid = ::fork();
    if (pid < 0) return Error{"no process: " + uv::error_text(-errno)};
    if (pid == 0) {
        ::setpgid(0, 0);  // Ctrl-C is ours: the children are stopped in order
        ::prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (::getppid() != parent) ::_exit(127);
        if (read_stdout) ::dup2(pipe[1], STDOUT_FILENO);
        ::execv(argv[0], argv.data());
        ::_exit(127);
    }
    if (read_stdout) ::close(pipe[1]);
    return Child{pid, pipe[0]};
}

// Reaps the child; afterwards its number may belong to somebody else.
bool ended(Child& child) {
    int status = 0;
    if (::waitpid(child.pid, &status, WNOHANG) != child.pid) return false;
    child.pid = -1;
    return true;
}

void pause_for(Duration d) {
    uv::Loop loop;
    loop.after(d, [&] { loop.stop(); });
    loop.run();
}

void stop(Child& child, int signum) {
    if (child.pid <= 0) return;
    ::kill(child.pid, signum);
    for (Duration waited{}; waited < kStopIn; waited += kPoll) {
        if (ended(child)) return;
        pause_for(kPoll);
    }
    int status = 0;
    ::kill(child.pid, SIGKILL);
    ::waitpid(child.pid, &status, 0);
    child.pid = -1;
}

// The address behind "listening on http://" in the child's first line.
std::optional<std::string> first_address(int fd) {
    std::string line;
    char c = 0;
    while (line.size() < 200 && ::read(fd, &c, 1) == 1 && c != '\n')
        line += c;
    const std::size_t at = line.find("http://");
    if (at == std::string::npos) return std::nullopt;
    return line.substr(at + 7);
}

// The wanted port, or another free one.
std::uint16_t free_port(std::uint16_t wanted) {
    for (const std::uint16_t port : {wanted, std::uint16_t{0}}) {
        const auto address = uv::SocketAddress::parse("127.0.0.1", port);
        const auto fd = uv::open_listening_socket(*address, false);
        if (!fd) continue;
        const std::uint16_t got = uv::local_address(*fd).port();
        ::close(*fd);
        return got;
    }
    return wanted;
}

// Beside this binary, or where the build puts it.
std::optional<fs::path> find_ledger(const fs::path& program) {
    std::error_code ignored;
    const fs::path self = fs::read_symlink("/proc/self/exe", ignored);
    const fs::path folder = (self.empty() ? program : self).parent_path();
    for (const fs::path& candidate :
         {folder / "outrider-ledger", folder / ".." / "demo" / "outrider-ledger"}) {
        if (::access(candidate.c_str(), X_OK) == 0) return candidate;
    }
    return std::nullopt;
}

std::string sidecar_config(std::uint16_t port, std::uint16_t admin, const std::string& ledger,
                           const fs::path& folder) {
    return "# Written by outrider demo.\n[node]\nname = \"demo-sidecar\"\nservice = "
           "\"ledger\"\n\n[runtime]\nworkers = 1\n\n"
           "[admin]\nlisten = \"127.0.0.1:" +
           std::to_string(admin) + "\"\n\n[log]\naccess = \"" + (folder / "access.log").string() +
           "\"\n\n[drain]\ndelay = \"0s\"\n\n[[listener]]\nname = \"inbound\"\n"
           "listen = \"127.0.0.1:" +
           std::to_string(port) +
           "\"\n\n[[route]]\nname = \"ledger\"\nlistener = \"inbound\"\n"
           "cluster = \"ledger\"\ntimeout = \"15s\"\n\n[[cluster]]\nname = \"ledger\"\nendpoints = [\"" +
           ledger + "\"]\n";
}

void print_what_to_try(std::uint16_t port, std::uint16_t admin, const std::string& ledger,
                       const fs::path& folder) {
    std::printf(
        "\nA ledger application runs on http://%s, a sidecar in front of it on http://127.0.0.1:%u.\nTry:\n\n"
        "  curl -i http://127.0.0.1:%u/accounts/1\n"
        "  curl -i http://127.0.0.1:%u/transfers -H 'Content-Type: application/json' -d "
        "'{\"from\":1,\"to\":2,\"amount\":100}'\n"
        "  curl -s http://127.0.0.1:%u/echo                      what the application sees of a request\n"
        "  curl -s http://127.0.0.1:%u/control -d '{\"latency_ms\":300}' -H 'Content-Type: "
        "application/json'\n"
        "  curl -s http://127.0.0.1:%u/clusters                  the sidecar's admin endpoint (open / in a "
        "browser)\n"
        "  curl -s http://127.0.0.1:%u/metrics | grep http_requests\n"
        "  tail -f %s\n"
        "\nIts configuration: %s\nCtrl-C ends everything.\n\n",
        ledger.c_str(), port, port, port, port, port, admin, admin, (folder / "access.log").c_str(),
        (folder / "sidecar.toml").c_str());
    std::fflush(stdout);
}

bool becomes_ready(std::uint16_t admin, Child& sidecar) {
    for (Duration waited{}; waited < kReadyIn; waited += kPoll) {
        const auto answer = admin_call({"127.0.0.1", admin}, "GET", "/ready", 1s);
        if (answer && answer->status == 200) return true;
        if (ended(sidecar)) return false;
        pause_for(kPoll);
    }
    return false;
}

int failed(const std::string& reason) {
    std::fprintf(stderr, "outrider demo: %s\n", reason.c_str());
    return 1;
}

// Until a signal, or until a child ends by itself. True when it was a signal.
bool wait_for_end(Child& ledger, Child& sidecar) {
    uv::Loop loop;
    bool asked = false;
    {
        const uv::Signals signals(loop, {SIGINT, SIGTERM, SIGHUP}, [&](int) {
            asked = true;
            loop.stop();
        });
        std::function<void()> look = [&] {
            for (Child* child : {&ledger, &sidecar}) {
                if (ended(*child)) {
                    std::fprintf(stderr, "outrider demo: the %s ended by itself\n",
                                 child == &ledger ? "ledger" : "sidecar");
                    loop.stop();
                    return;
                }
            }
            loop.after(200ms, look);
        };
        look();
        loop.run();
    }
    return asked;
}

}  // namespace

int demo(const DemoOptions& options) {
    std::signal(SIGPIPE, SIG_IGN);
    const auto ledger_path = find_ledger(options.program);
    if (!ledger_path)
        return failed(
            "the outrider-ledger program is not beside this one (build the target outrider_ledger)");
    std::string folder_name = (fs::temp_directory_path() / "outrider-demo-XXXXXX").string();
    if (::mkdtemp(folder_name.data()) == nullptr)
        return failed("no temporary folder: " + uv::error_text(-errno));
    const fs::path folder = folder_name;
    Child ledger;
    Child sidecar;
    int code = 1;
    if (auto started = start({ledger_path->string(), "--listen", "127.0.0.1:0"}, true); !started) {
        failed(started.error());
    } else if (ledger = *started; const auto address = first_address(ledger.out)) {
        const std::uint16_t port = free_port(options.port);
        const std::uint16_t admin = free_port(options.admin_port);
        const fs::path config = folder / "sidecar.toml";
        std::ofstream(config) << sidecar_config(port, admin, *address, folder);
        if (auto run = start({"/proc/self/exe", "run", "-c", config.string()}, false); !run) {
            failed(run.error());
        } else if (sidecar = *run; !becomes_ready(admin, sidecar)) {
            failed("the sidecar did not become ready");
        } else {
            print_what_to_try(port, admin, *address, folder);
            code = wait_for_end(ledger, sidecar) ? 0 : 1;
        }
    } else {
        failed("the ledger did not start");
    }
    stop(sidecar, SIGTERM);
    stop(ledger, SIGTERM);
    if (ledger.out >= 0) ::close(ledger.out);
    std::error_code ignored;
    fs::remove_all(folder, ignored);
    if (code == 0) std::printf("\nEverything is stopped.\n");
    return code;
}

}  // namespace outrider::cli
