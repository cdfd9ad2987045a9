// Command programs builds the named programs that tests run against, unless they are
// current, and prints their paths, one on each line.
//
//	go run ./test/programs/cmd/programs vault kube-apiserver
//
// It prints paths to standard output, and progress to standard error. With -list it prints
// the names of all programs.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/secretmanager-io/secretmanager/test/programs"
)

func main() {
	list := flag.Bool("list", false, "print the names of all programs and build none")
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "usage: programs [-list] NAME...")
		flag.PrintDefaults()
	}
	flag.Parse()
	if err := run(*list, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "programs:", err)
		os.Exit(1)
	}
}

func run(list bool, names []string) error {
	if list {
		for _, name := range programs.Names() {
			fmt.Println(name)
		}
		return nil
	}
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	paths, err := programs.Build(ctx, names...)
	if err != nil {
		return err
	}
	for _, path := range paths {
		fmt.Println(path)
	}
	return nil
}
