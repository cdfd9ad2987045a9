// Command openbao serves a real OpenBao for tests: the core of the product,
// unmodified, with the transit engine and the kubernetes, jwt and approle methods.
// It has the flags, the ready line and the habits of the command in test/vault, so
// that a test can run against either.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/hashicorp/go-hclog"
)

// options are the flags.
type options struct {
	address       string
	rootToken     string
	logLevel      string
	mounts        list
	storage       string
	tlsCert       string
	tlsKey        string
	stopWithStdin bool
}

// list is a flag that may be given several times.
type list []string

func (l *list) String() string { return strings.Join(*l, ",") }

func (l *list) Set(value string) error {
	*l = append(*l, value)
	return nil
}

func main() {
	var o options
	flag.StringVar(&o.address, "address", "127.0.0.1:0", "`host:port` to listen on; port 0 picks a free one")
	flag.StringVar(&o.rootToken, "root-token", "root", "id of the root `token`")
	flag.StringVar(&o.logLevel, "log-level", "warn", "trace, debug, info, warn or error")
	flag.Var(&o.mounts, "mount", "`PATH[=TYPE]` to enable before serving, such as mounts/transit or auth/team-a=kubernetes; the type is the last part of the path unless given; may be repeated")
	flag.StringVar(&o.storage, "storage", "", "`folder` to keep the data and the unseal key in, so that the next start finds them again; empty keeps all in memory")
	flag.StringVar(&o.tlsCert, "tls-cert", "", "`file` with the serving certificate in PEM; empty serves plain HTTP")
	flag.StringVar(&o.tlsKey, "tls-key", "", "`file` with the key of --tls-cert in PEM")
	flag.BoolVar(&o.stopWithStdin, "stop-with-stdin", false, "end when standard input reaches its end, as it does when the parent process dies")
	flag.Parse()

	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	if o.stopWithStdin {
		go func() {
			io.Copy(io.Discard, os.Stdin)
			cancel()
		}()
	}
	if err := run(ctx, o, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "openbao:", err)
		os.Exit(1)
	}
}

// ready is the line printed when the server serves.
type ready struct {
	Address   string `json:"address"`
	RootToken string `json:"rootToken"`
	UnsealKey string `json:"unsealKey"`
}

func run(ctx context.Context, o options, arguments []string) error {
	if len(arguments) > 0 {
		return fmt.Errorf("unexpected argument %q: everything is a flag", arguments[0])
	}
	if (o.tlsCert == "") != (o.tlsKey == "") {
		return errors.New("--tls-cert and --tls-key are only of use together")
	}
	level := hclog.LevelFromString(o.logLevel)
	if level == hclog.NoLevel {
		return fmt.Errorf("--log-level %q is none of trace, debug, info, warn, error", o.logLevel)
	}
	logger := hclog.New(&hclog.LoggerOptions{Name: "openbao", Level: level, Output: os.Stderr})

	listener, address, err := listen(o.address, o.tlsCert, o.tlsKey)
	if err != nil {
		return err
	}
	defer listener.Close()

	v, err := start(ctx, o, address, logger)
	if err != nil {
		return err
	}
	defer v.core.Shutdown()

	line, err := json.Marshal(ready{Address: address, RootToken: o.rootToken, UnsealKey: v.unsealKey})
	if err != nil {
		return err
	}
	// The listener already accepts connections: whoever reads the line may call.
	fmt.Println(string(line))
	return serve(ctx, listener, v.core, logger)
}
