// ctl kv: get, put, del, create, cas, compact.
#include <cstdio>
#include <iterator>
#include <map>

#include "cli/ctl_run.h"

namespace outrider::cli {
namespace {

// How a range is named by `get` and `del`.
struct RangeArguments {
    std::string key;
    std::string end;
    bool prefix = false;
    bool from_key = false;

    void add_to(CLI::App& command) {
        command.add_option("key", key, "The key, or the first of a range")->required();
        auto* last = command.add_option("end", end, "The first key behind the range");
        auto* prefix_flag =
            command.add_flag("--prefix", prefix, "Every key that begins so (of \"\": every key)");
        auto* from_flag = command.add_flag("--from-key", from_key, "Every key from this one on");
        prefix_flag->excludes(last)->excludes(from_flag);
        from_flag->excludes(last);
    }
    bool single() const { return end.empty() && !prefix && !from_key; }
    template <typename Request>
    void fill(Request& request) const {
        request.set_key(key.empty() ? std::string(1, '\0') : key);
        if (prefix) {
            request.set_range_end(agent::prefix_end(key));
        } else if (from_key) {
            request.set_range_end(std::string(1, '\0'));
        } else {
            request.set_range_end(end);
        }
        if (single()) request.set_key(key);
    }
};

std::string table_of(const v3::RangeResponse& response, bool keys_only) {
    Table table(keys_only
                    ? std::vector<std::string>{"KEY", "VERSION", "CREATED", "MODIFIED", "LEASE"}
                    : std::vector<std::string>{"KEY", "VALUE", "VERSION", "CREATED", "MODIFIED", "LEASE"});
    for (const v3::KeyValue& kv : response.kvs()) {
        std::vector<std::string> row{printable(kv.key())};
        if (!keys_only) row.push_back(printable(kv.value()));
        row.push_back(std::to_string(kv.version()));
        row.push_back(std::to_string(kv.create_revision()));
        row.push_back(std::to_string(kv.mod_revision()));
        row.push_back(kv.lease() == 0 ? "-" : hex_id(static_cast<std::uint64_t>(kv.lease())));
        table.add(std::move(row));
    }
    return table.text();
}

// ---- get ----------------------------------------------------------------------------------------------------------------

struct GetArguments {
    RangeArguments range;
    std::int64_t limit = 0;
    std::int64_t revision = 0;
    bool keys_only = false;
    bool count_only = false;
    bool value_only = false;
    bool serializable = false;
    bool descend = false;
    std::string sort_by = "key";

    v3::RangeRequest request() const {
        static const std::map<std::string, v3::RangeRequest::SortTarget> kTargets = {
            {"key", v3::RangeRequest::KEY},        {"version", v3::RangeRequest::VERSION},
            {"created", v3::RangeRequest::CREATE}, {"modified", v3::RangeRequest::MOD},
            {"value", v3::RangeRequest::VALUE},
        };
        v3::RangeRequest request;
        range.fill(request);
        request.set_limit(limit);
        request.set_revision(revision);
        request.set_keys_only(keys_only);
        request.set_count_only(count_only);
        request.set_serializable(serializable);
        if (descend || sort_by != "key") {
            request.set_sort_target(kTargets.at(sort_by));
            request.set_sort_order(descend ? v3::RangeRequest::DESCEND : v3::RangeRequest::ASCEND);
        }
        return request;
    }
};

void show_range(CtlRun& run, const GetArguments& arguments, const v3::RangeResponse& response) {
    if (arguments.count_only) {
        run.print(std::to_string(response.count()) + "\n");
        run.finish();
        return;
    }
    if (response.kvs().empty() && arguments.range.single()) {
        run.fail("there is no key " + printable(arguments.range.key));
        return;
    }
    std::string text;
    if (arguments.value_only) {
        for (const v3::KeyValue& kv : response.kvs())
            text += kv.value() + "\n";
    } else {
        text = table_of(response, arguments.keys_only);
        if (response.more()) {
            text += "… and " + std::to_string(response.count() - response.kvs_size()) + " more\n";
        }
    }
    run.print(text);
    run.finish();
}

void add_get(CLI::App& kv, const CtlOptionsPtr& options) {
    auto arguments = std::make_shared<GetArguments>();
    auto* get = kv.add_subcommand("get", "Read a key or a range; exit 1 when the one key is not there")
                    ->fallthrough();
    arguments->range.add_to(*get);
    get->add_option("--limit", arguments->limit, "At most so many keys")->check(whole_number(0));
    get->add_option("--revision", arguments->revision, "As it was at this revision")->check(whole_number(0));
    auto* keys = get->add_flag("--keys-only", arguments->keys_only, "Without values");
    auto* count = get->add_flag("--count", arguments->count_only, "Only how many keys there are");
    auto* value = get->add_flag("--value-only", arguments->value_only,
                                "Only values, as they are, each with a line feed");
    keys->excludes(value);
    count->excludes(value)->excludes(keys);
    get->add_flag("--serializable", arguments->serializable,
                  "From the member's own copy, which may be behind");
    get->add_option("--sort-by", arguments->sort_by, "key, version, created, modified or value (default key)")
        ->check(CLI::IsMember({"key", "version", "created", "modified", "value"}));
    get->add_flag("--descend", arguments->descend, "The largest first");
    get->callback([arguments, options] {
        CtlRun run(*options);
        *options->code = run.run([&] {
            run.ask(arguments->request(), [&](const v3::RangeResponse& response) {
                if (run.json()) run.print(agent::to_json(response) + "\n");
                if (!run.json()) {
                    show_range(run, *arguments, response);
                } else if (response.kvs().empty() && arguments->range.single() && !arguments->count_only) {
                    run.finish(1);
                } else {
                    run.finish();
                }
            });
        });
    });
}

// ---- put, create, cas -----------------------------------------------------------------------------------------------------

// A value given as "-" comes from standard input, whole.
std::optional<std::string> value_from(const std::string& argument) {
    if (argument != "-") return argument;
    std::string value;
    char piece[64 * 1024];
    for (std::size_t size = 0; (size = std::fread(piece, 1, sizeof piece, stdin)) != 0;) {
        value.append(piece, size);
        if (value.size() > (std::size_t{64} << 20)) return std::nullopt;  // more than any server takes
    }
    if (std::ferror(stdin) != 0) return std::nullopt;
    return value;
}

struct PutArguments {
    std::string key;
    std::string expected;
    std::string value;
    std::string lease = "0";
    bool previous = false;

    void add_lease(CLI::App& command) {
        command.add_option("--lease", lease, "Attach it to this lease")->check(check_id);
    }
    v3::PutRequest request(std::string from) const {
        v3::PutRequest request;
        request.set_key(key);
        request.set_value(std::move(from));
        request.set_lease(static_cast<std::int64_t>(*parse_id(lease)));
        request.set_prev_kv(previous);
        return request;
    }
};

// Runs `begin` with the value; standard input that cannot be read is a failure like any other.
int run_with_value(const CtlOptionsPtr& options, const std::string& argument,
                   const std::function<void(CtlRun&, std::string)>& begin) {
    const auto value = value_from(argument);
    CtlRun run(*options);
    return run.run([&] {
        if (value) {
            begin(run, *value);
        } else {
            run.fail("cannot read the value from standard input");
        }
    });
}

std::string at_revision(const v3::ResponseHeader& header) {
    return "revision " + std::to_string(header.revision());
}

void add_put(CLI::App& kv, const CtlOptionsPtr& options) {
    auto arguments = std::make_shared<PutArguments>();
    auto* put = kv.add_subcommand("put", "Write a key")->fallthrough();
    put->add_option("key", arguments->key, "The key")->required();
    put->add_option("value", arguments->value, "The value; - reads it from standard input")->required();
    arguments->add_lease(*put);
    put->add_flag("--previous", arguments->previous, "Print what was there before");
    put->callback([arguments, options] {
        *options->code = run_with_value(options, arguments->value, [&](CtlRun& run, std::string value) {
            run.show(arguments->request(std::move(value)), [&](const v3::PutResponse& response) {
                std::string text = "written at " + at_revision(response.header()) + "\n";
                if (response.has_prev_kv()) text += "before: " + printable(response.prev_kv().value()) + "\n";
                run.print(text);
                run.finish();
            });
        });
    });
}

// The put, if the comparison holds; exit 1 when it does not.
void put_if(CtlRun& run, const v3::Compare& compare, const v3::PutRequest& put,
            const std::string& otherwise) {
    v3::TxnRequest txn;
    *txn.add_compare() = compare;
    *txn.add_success()->mutable_request_put() = put;
    run.ask(txn, [&run, otherwise](const v3::TxnResponse& response) {
        if (run.json()) {
            run.print(agent::to_json(response) + "\n");
            run.finish(response.succeeded() ? 0 : 1);
        } else if (!response.succeeded()) {
            run.fail(otherwise);
        } else {
            run.print("written at " + at_revision(response.header()) + "\n");
            run.finish();
        }
    });
}

void add_create(CLI::App& kv, const CtlOptionsPtr& options) {
    auto arguments = std::make_shared<PutArguments>();
    auto* create =
        kv.add_subcommand("create", "Write a key that is not there; exit 1 when it is")->fallthrough();
    create->add_option("key", arguments->key, "The key")->required();
    create->add_option("value", arguments->value, "The value; - reads it from standard input")->required();
    arguments->add_lease(*create);
    create->callback([arguments, options] {
        *options->code = run_with_value(options, arguments->value, [&](CtlRun& run, std::string value) {
            v3::Compare absent;
            absent.set_key(arguments->key);
            absent.set_target(v3::Compare::CREATE);
            absent.set_create_revision(0);
            put_if(run, absent, arguments->request(std::move(value)),
                   "the key " + printable(arguments->key) + " is there");
        });
    });
}

void add_cas(CLI::App& kv, const CtlOptionsPtr& options) {
    auto arguments = std::make_shared<PutArguments>();
    auto* cas = kv.add_subcommand("cas", "Write a key that has a certain value; exit 1 when it has not")
                    ->fallthrough();
    cas->add_option("key", arguments->key, "The key")->required();
    cas->add_option("expected", arguments->expected, "The value it has")->required();
    cas->add_option("value", arguments->value, "The value it gets; - reads it from standard input")
        ->required();
    arguments->add_lease(*cas);
    cas->callback([arguments, options] {
        *options->code = run_with_value(options, arguments->value, [&](CtlRun& run, std::string value) {
            v3::Compare same;
            same.set_key(arguments->key);
            same.set_target(v3::Compare::VALUE);
            same.set_value(arguments->expected);
            put_if(run, same, arguments->request(std::move(value)),
                   "the key " + printable(arguments->key) + " does not have that value");
        });
    });
}

// ---- del, compact -----------------------------------------------------------------------------------------------------------

void add_del(CLI::App& kv, const CtlOptionsPtr& options) {
    struct Arguments {
        RangeArguments range;
        bool previous = false;
    };
    auto arguments = std::make_shared<Arguments>();
    auto* del =
        kv.add_subcommand("del", "Delete a key or a range; prints how many there were")->fallthrough();
    arguments->range.add_to(*del);
    del->add_flag("--previous", arguments->previous, "Print what was deleted");
    del->callback([arguments, options] {
        CtlRun run(*options);
        *options->code = run.run([&] {
            v3::DeleteRangeRequest request;
            arguments->range.fill(request);
            request.set_prev_kv(arguments->previous);
            run.show(request, [&](const v3::DeleteRangeResponse& response) {
                std::string text = std::to_string(response.deleted()) + " deleted\n";
                for (const v3::KeyValue& before : response.prev_kvs())
                    text += printable(before.key()) + "  " + printable(before.value()) + "\n";
                run.print(text);
                run.finish();
            });
        });
    });
}

void add_compact(CLI::App& kv, const CtlOptionsPtr& options) {
    auto revision = std::make_shared<std::int64_t>(0);
    auto* compact = kv.add_subcommand("compact", "Forget the history before a revision")->fallthrough();
    compact->add_option("revision", *revision, "The oldest that can still be read afterwards")
        ->required()
        ->check(whole_number(1));
    compact->callback([revision, options] {
        CtlRun run(*options);
        *options->code = run.run([&] {
            v3::CompactionRequest request;
            request.set_revision(*revision);
            run.show(request, [&](const v3::CompactionResponse&) {
                run.print("compacted to revision " + std::to_string(*revision) + "\n");
                run.finish();
            });
        });
    });
}

}  // namespace

void add_ctl_kv(CLI::App& ctl, const CtlOptionsPtr& options) {
    auto* kv = ctl.add_subcommand("kv", "Keys and values")->fallthrough();
    kv->require_subcommand(1);
    add_get(*kv, options);
    add_put(*kv, options);
    add_create(*kv, options);
    add_cas(*kv, options);
    add_del(*kv, options);
    add_compact(*kv, options);
}

}  // namespace outrider::cli
