// Command release builds the files of a release, reproducibly byte for byte:
//
//   - an archive of the CLI for each platform, with its completions and licenses,
//   - an OCI archive of the image for all its platforms, and its digest,
//   - a bill of materials (SBOM) for each, from the build information in the
//     programs: the linked modules, and none that are only in go.mod,
//   - the manifest with which krew installs the CLI as a kubectl plugin,
//   - SHA256SUMS of all files.
//
// The files do not depend on the machine: paths are trimmed, times are the commit's,
// owners are 0, entries are sorted, and the CA roots come from a module that go.sum
// pins. They depend on the version of Go, which each program prints.
//
// The image is written here and not by Docker, which would need a registry and
// would add its own times. The Dockerfile takes its files from -rootfs, so both
// images have the same files.
//
// This is a separate module, so that the product does not depend on its dependencies.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// A release is the input of a release.
type release struct {
	root      string // of the repository
	version   string // v1.2.3
	commit    string // in full
	date      time.Time
	fips      bool
	platforms []platform
	work      string // for programs, before they are packed
}

// name begins the names of all files.
func (r *release) name() string {
	if r.fips {
		return "secretmanager-fips"
	}
	return "secretmanager"
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if errors.Is(err, flag.ErrHelp) {
		os.Exit(2)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "release:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("release", flag.ContinueOnError)
	r := &release{}
	flags.StringVar(&r.root, "root", "../..", "`directory` of the repository")
	flags.StringVar(&r.version, "version", "", "semantic `version` with its v (default: from git)")
	flags.StringVar(&r.commit, "commit", "", "`commit` that is built (default: git's HEAD)")
	date := flags.String("date", os.Getenv("SOURCE_DATE_EPOCH"),
		"`seconds` since 1970 that everything is dated (default: SOURCE_DATE_EPOCH, else the commit's)")
	flags.BoolVar(&r.fips, "fips", false, "build with Go's certified FIPS 140-3 module, and in its mode")
	platforms := flags.String("platforms", "", "comma-separated `list` of GOOS/GOARCH (default: all)")
	out := flags.String("out", "", "empty or new `directory` for the release")
	rootfs := flags.String("rootfs", "", "write only the files of the image to this `directory`, for "+
		"one platform")
	imageOnly := flags.Bool("image-only", false, "make only the image")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unexpected arguments: %q", flags.Args())
	}
	if (*out == "") == (*rootfs == "") {
		return errors.New("set either -out or -rootfs")
	}
	if err := r.identify(ctx, *date); err != nil {
		return err
	}
	var err error
	if r.platforms, err = choose(*platforms); err != nil {
		return err
	}
	if r.work, err = os.MkdirTemp("", "secretmanager-release-"); err != nil {
		return err
	}
	defer os.RemoveAll(r.work)
	if *rootfs != "" {
		return r.layOut(ctx, *rootfs)
	}
	d, err := newDist(*out)
	if err != nil {
		return err
	}
	if !*imageOnly {
		if err := r.archives(ctx, d); err != nil {
			return err
		}
	}
	if err := r.image(ctx, d); err != nil {
		return err
	}
	return d.sums()
}

// semver matches valid versions: krew and the driver require this format, and an
// image's tag allows no build metadata.
var semver = regexp.MustCompile(`^v(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-[0-9A-Za-z.-]+)?$`)

// identify reads from git what the flags do not set.
func (r *release) identify(ctx context.Context, date string) (err error) {
	git := func(what string, args ...string) (text string) {
		cmd := exec.CommandContext(ctx, "git", args...)
		cmd.Dir = r.root
		output, e := cmd.Output()
		if e != nil && err == nil {
			err = fmt.Errorf("reading the %s from git: %w: outside a clone, set -version, -commit and -date", what, e)
		}
		return strings.TrimSpace(string(output))
	}
	if r.root, err = filepath.Abs(r.root); err != nil {
		return err
	}
	if r.version == "" {
		r.version = git("version", "describe", "--tags", "--always", "--dirty", "--abbrev=12")
		if !strings.HasPrefix(r.version, "v") {
			r.version = "v0.0.0-g" + r.version // of a history without tags
		}
	}
	if r.commit == "" {
		r.commit = git("commit", "rev-parse", "HEAD")
	}
	if date == "" {
		date = git("commit's date", "log", "-1", "--format=%ct")
	}
	if err != nil {
		return err
	}
	if !semver.MatchString(r.version) {
		return fmt.Errorf("version %q is not of the form v1.2.3 or v1.2.3-rc.1", r.version)
	}
	seconds, err := strconv.ParseInt(date, 10, 64)
	if err != nil {
		return fmt.Errorf("date %q is not a number of seconds since 1970", date)
	}
	r.date = time.Unix(seconds, 0).UTC()
	return nil
}
