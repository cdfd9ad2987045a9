// Package server is the part that the programs in test/vault and test/openbao
// share: flags, listener, initialization and the ready line. Each program adds its
// core. All requests go to the core's HTTP handler, so this package depends on
// neither of them.
package server

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/hashicorp/go-hclog"
)

// Config is the configuration of a core.
type Config struct {
	// Address is the URL under which the core serves.
	Address string
	// DataDir is the directory for the (encrypted) data; empty keeps it in memory.
	DataDir string
	Logger  hclog.Logger
	// Raft makes the core a member of a cluster; nil for a server of its own.
	Raft *Raft
}

// A Core is a core of Vault or of OpenBao, sealed until [Main] unseals it.
type Core struct {
	Handler  http.Handler
	Shutdown func() error
}

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
	raft          raftOptions
}

// list is a flag that may be repeated.
type list []string

func (l *list) String() string { return strings.Join(*l, ",") }

func (l *list) Set(value string) error {
	*l = append(*l, value)
	return nil
}

// Main is the main function of the program of that name.
func Main(name string, newCore func(Config) (*Core, error)) {
	var o options
	flag.StringVar(&o.address, "address", "127.0.0.1:0", "`host:port` to listen on; port 0 picks a free one")
	flag.StringVar(&o.rootToken, "root-token", "root", "id of the root `token`")
	flag.StringVar(&o.logLevel, "log-level", "warn", "trace, debug, info, warn or error")
	flag.Var(&o.mounts, "mount", "`PATH[=TYPE]` to enable before serving, such as mounts/transit or "+
		"auth/team-a=kubernetes; the default type is the last part of the path; may be repeated")
	flag.StringVar(&o.storage, "storage", "", "`directory` for the data and the unseal key, where the next start "+
		"finds them; empty keeps all in memory")
	flag.StringVar(&o.tlsCert, "tls-cert", "", "PEM `file` of the serving certificate; empty serves plain HTTP")
	flag.StringVar(&o.tlsKey, "tls-key", "", "PEM `file` of the key of --tls-cert")
	flag.BoolVar(&o.stopWithStdin, "stop-with-stdin", false,
		"end at the end of standard input, which comes when the parent process dies")
	o.raft.addFlags()
	flag.Parse()

	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	if o.stopWithStdin {
		go func() {
			io.Copy(io.Discard, os.Stdin)
			cancel()
		}()
	}
	if err := run(ctx, name, o, flag.Args(), newCore); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		os.Exit(1)
	}
}

// ready is the line that the program prints when it serves.
type ready struct {
	Address   string `json:"address"`
	RootToken string `json:"rootToken"`
	UnsealKey string `json:"unsealKey"`
}

func run(ctx context.Context, name string, o options, args []string, newCore func(Config) (*Core, error)) error {
	if len(args) > 0 {
		return fmt.Errorf("unexpected argument %q", args[0])
	}
	if (o.tlsCert == "") != (o.tlsKey == "") {
		return errors.New("--tls-cert and --tls-key must be used together")
	}
	member, err := o.member()
	if err != nil {
		return err
	}
	level := hclog.LevelFromString(o.logLevel)
	if level == hclog.NoLevel {
		return fmt.Errorf("invalid --log-level %q: must be trace, debug, info, warn or error", o.logLevel)
	}
	logger := hclog.New(&hclog.LoggerOptions{Name: name, Level: level, Output: os.Stderr})

	listener, address, err := listen(o.address, o.tlsCert, o.tlsKey)
	if err != nil {
		return err
	}
	defer listener.Close()

	storage, err := openStorage(o.storage)
	if err != nil {
		return err
	}
	core, err := newCore(Config{Address: address, DataDir: storage.dataDir(), Logger: logger, Raft: member})
	if err != nil {
		return err
	}
	defer core.Shutdown()
	keys, err := (&setup{handler: core.Handler}).prepare(ctx, storage, o)
	if err != nil {
		return err
	}
	line, err := json.Marshal(ready{Address: address, RootToken: o.rootToken, UnsealKey: keys.UnsealKey})
	if err != nil {
		return err
	}
	// The listener already accepts connections, so the reader may connect at once.
	fmt.Println(string(line))
	return serve(ctx, listener, core.Handler, logger)
}
