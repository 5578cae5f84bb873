import configparser, json, os, sys

join, home, variable = os.path.join, os.path.expanduser, os.environ.get
named = variable("PIP_CONFIG_FILE", "")
config = variable("XDG_CONFIG_HOME") or home("~/.config")
shared = (variable("XDG_CONFIG_DIRS") or "/etc/xdg").split(os.pathsep)
places = [join(folder, "pip") for folder in shared] + ["/etc"]
if sys.platform == "darwin":
    places = ["/Library/Application Support/pip"]
    if sys.prefix.startswith("/opt/homebrew"):
        places.insert(0, "/opt/homebrew/share/pip")
    own = home("~/Library/Application Support")
    config = own if os.path.isdir(join(own, "pip")) else home("~/.config")
if not os.path.exists(named):
    places += [home("~/.pip"), join(config, "pip")]
files = [join(place, "pip.conf") for place in places + [sys.prefix]] + [named]

sections = {"global": {}, "install": {}}  # the second overrides the first
for path in files if named != os.devnull else []:
    try:
        parser = configparser.RawConfigParser()
        parser.read(path)
    except (configparser.Error, UnicodeError) as error:
        sys.exit(f"{path}: " + " ".join(str(error).split()))
    for name, options in sections.items():
        if parser.has_section(name):
            options.update((key.replace("_", "-").removeprefix("--"), value) for key, value in parser.items(name))
print(json.dumps({key: value for options in sections.values() for key, value in options.items() if value}))
