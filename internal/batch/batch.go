// Package batch groups the entries of Secrets into requests to Vault that span Secrets, with bounded
// memory.
//
// Package transit splits a batch that is too long for a request. This package collects enough entries for
// one, so that Secrets of a few entries do not need a request each.
package batch

import (
	"context"

	"golang.org/x/sync/errgroup"

	"github.com/secretmanager-io/secretmanager/ciphertext"
)

// A batch has at most maxItems entries and maxBytes bytes, or a single Secret. At most maxWaiting bytes
// wait for more entries of their group.
const (
	maxItems   = 100
	maxBytes   = 1 << 20
	maxWaiting = 8 << 20
)

// Group identifies entries that may share a request. Vault requires a context for every item of a request
// or for none.
type Group struct {
	Key   ciphertext.Key
	Bound bool // whether the items have a context
}

// GroupOf returns the group of a Secret.
func GroupOf(set ciphertext.Settings) Group { return Group{set.Key, set.Scope != ciphertext.None} }

// Batcher collects parts, such as Secrets with some of their entries, and sends those of a group together.
// It never splits a part. Only one goroutine may call its methods.
type Batcher[T any] struct {
	// Send sends a batch.
	Send func(ctx context.Context, g Group, parts []T) error
	// Workers is how many calls of Send may run at the same time, in their own goroutines. Add and Flush
	// block while all are busy. If it is 0, Add and Flush call Send themselves.
	Workers int

	batches map[Group]*batch[T]
	waiting int // bytes in all batches
	workers errgroup.Group
}

type batch[T any] struct {
	parts        []T
	items, bytes int
}

// Add adds a part of a number of items and bytes. It sends batches that are full. The error is that of
// Send, if there are no Workers; the part still waits then.
func (b *Batcher[T]) Add(ctx context.Context, g Group, part T, items, bytes int) error {
	if b.batches == nil {
		b.batches = map[Group]*batch[T]{}
		b.workers.SetLimit(max(b.Workers, 1))
	}
	full := b.batches[g]
	if full != nil && full.items+items <= maxItems && full.bytes+bytes <= maxBytes {
		full.parts, full.items, full.bytes = append(full.parts, part), full.items+items, full.bytes+bytes
		full = nil
	} else {
		b.batches[g] = &batch[T]{[]T{part}, items, bytes}
	}
	b.waiting += bytes
	if full != nil {
		if err := b.send(ctx, g, full); err != nil {
			return err
		}
	}
	if b.waiting > maxWaiting {
		return b.sendAll(ctx)
	}
	return nil
}

// Flush sends all parts that wait, and waits for the Workers. The error is the first of Send, after which
// it sends no more unless there are Workers.
func (b *Batcher[T]) Flush(ctx context.Context) error {
	if err := b.sendAll(ctx); err != nil {
		return err
	}
	return b.workers.Wait()
}

// Drain removes and returns the parts that wait.
func (b *Batcher[T]) Drain() (parts []T) {
	for _, one := range b.batches {
		parts = append(parts, one.parts...)
	}
	clear(b.batches)
	b.waiting = 0
	return parts
}

func (b *Batcher[T]) sendAll(ctx context.Context) error {
	for g, one := range b.batches {
		delete(b.batches, g)
		if err := b.send(ctx, g, one); err != nil {
			return err
		}
	}
	return nil
}

func (b *Batcher[T]) send(ctx context.Context, g Group, full *batch[T]) error {
	b.waiting -= full.bytes
	if b.Workers == 0 {
		return b.Send(ctx, g, full.parts)
	}
	b.workers.Go(func() error { return b.Send(ctx, g, full.parts) })
	return nil
}
