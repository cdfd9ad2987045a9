// Command release makes what is published of a version, byte for byte the same
// wherever it runs:
//
//   - an archive of the CLI for each platform, with its completions and licenses,
//   - an OCI archive of the image for all its platforms, and its digest,
//   - next to each a bill of materials (SBOM), made from what Go notes in the
//     programs: what is linked, and nothing that merely stands in go.mod,
//   - the manifest with which krew installs the CLI as a kubectl plugin,
//   - SHA256SUMS over all of it.
//
// Nothing of the machine gets in: paths are trimmed, times are the commit's,
// owners are 0, entries are sorted, and the CA roots come from a module that go.sum
// pins. What remains is the version of Go, which each program prints.
//
// The image is written here and not by Docker, which would need a registry and
// would stamp its own times. The Dockerfile takes its files from -rootfs, so the
// two hold the same.
//
// It is a module of its own, so that none of its dependencies is the product's.
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

// A release is what is made and from what.
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
	flags.StringVar(&r.root, "root", "../..", "`folder` of the repository")
	flags.StringVar(&r.version, "version", "", "semantic `version` with its v (default: from git)")
	flags.StringVar(&r.commit, "commit", "", "`commit` that is built (default: git's HEAD)")
	date := flags.String("date", os.Getenv("SOURCE_DATE_EPOCH"),
		"`seconds` since 1970 that everything is dated (default: SOURCE_DATE_EPOCH, else the commit's)")
	flags.BoolVar(&r.fips, "fips", false, "build with Go's certified FIPS 140-3 module, and in its mode")
	platforms := flags.String("platforms", "", "comma-separated `list` of GOOS/GOARCH (default: all)")
	out := flags.String("out", "", "empty or new `folder` for the release")
	rootfs := flags.String("rootfs", "", "make no release: lay out the files of the image in this `folder`, for "+
		"one platform")
	imageOnly := flags.Bool("image-only", false, "make the image and nothing else")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("there are no arguments beside flags: %q", flags.Args())
	}
	if (*out == "") == (*rootfs == "") {
		return errors.New("one of -out and -rootfs says what to make")
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

// semver is what a version must be like: krew and the driver want it so, and an
// image's tag allows no build metadata.
var semver = regexp.MustCompile(`^v(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-[0-9A-Za-z.-]+)?$`)

// identify finds out what git knows and the flags do not say.
func (r *release) identify(ctx context.Context, date string) (err error) {
	git := func(what string, args ...string) (text string) {
		cmd := exec.CommandContext(ctx, "git", args...)
		cmd.Dir = r.root
		output, e := cmd.Output()
		if e != nil && err == nil {
			err = fmt.Errorf("asking git for the %s: %w: outside of a clone give -version, -commit and -date", what, e)
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
