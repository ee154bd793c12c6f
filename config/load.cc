#include "config/load.h"

#include "config/diagnostics.h"
#include "config/document.h"
#include "config/reader.h"
#include "config/sections.h"
#include "config/source.h"
#include "config/validate.h"

namespace outrider::config {
namespace {

Settings read_settings(const Value& document, Diagnostics& diagnostics, const EnvLookup& env,
                       const std::string& host_name) {
    ReadContext context{diagnostics, env};
    TableReader root(context, document, "");
    Settings settings;
    read_node(root, settings.node);
    read_runtime(root, settings.runtime);
    read_admin(root, settings.admin);
    read_log(root, settings.log);
    read_drain(root, settings.drain);
    read_listeners(root, settings.listeners);
    read_routes(root, settings.routes);
    read_clusters(root, settings.clusters);
    read_stores(root, settings.stores);
    root.finish();
    if (settings.node.name.empty()) settings.node.name = usable_host_name(host_name);
    return settings;
}

}  // namespace

LoadResult parse(std::string_view text, const std::string& file_name, const EnvLookup& env,
                 const std::string& host_name) {
    LoadResult result;
    result.source = text;
    Diagnostics diagnostics(file_name);
    if (is_text(text, diagnostics)) {
        const Value document = parse_document(text, diagnostics);
        if (!diagnostics.has_errors()) {
            Settings settings = read_settings(document, diagnostics, env, host_name);
            validate(settings, diagnostics);
            if (!diagnostics.has_errors()) result.settings = std::move(settings);
        }
    }
    result.diagnostics = diagnostics.take();
    return result;
}

LoadResult load_file(const std::string& path) {
    Result<std::string> text = read_file(path);
    if (!text) {
        Diagnostics diagnostics(path);
        diagnostics.error({}, "", text.error());
        return {.settings = std::nullopt, .diagnostics = diagnostics.take(), .source = ""};
    }
    return parse(*text, path, process_environment(), host_name());
}

}  // namespace outrider::config
