// Entry, the note that makes the file a payload, and what a compiler expects to find in every program.
// ABI: guests/README.md.

    .section .note.mingle, "a", @note
    .balign 4
    .long 7                     // length of the name with its NUL
    .long 8                     // length of the descriptor
    .long 1                     // type: payload
    .asciz "Mingle"
    .balign 4
    .long 1                     // ABI version
    .long 0                     // flags

    .section .text.start, "ax", @progbits
    .globl _start
    .type _start, @function
_start:                         // RDI: boot information, RSI: vCPU index; RSP is as after a call
    subq $8, %rsp
    call payload_main
0:  movl $1000000, %eax         // a vCPU that has nothing left to do sleeps for ever
    movw $0xD08, %dx
    outl %eax, %dx
    jmp 0b
    .size _start, . - _start

    .section .bss.machine_line_buffer, "aw", @nobits
    .globl machine_line_buffer
    .type machine_line_buffer, @object
machine_line_buffer:
    .zero 256
    .size machine_line_buffer, . - machine_line_buffer

// memset(RDI, ESI, RDX), memcpy(RDI, RSI, RDX), memmove, memcmp: compilers call these behind one's back.
    .section .text.memset, "ax", @progbits
    .globl memset
    .type memset, @function
memset:
    movq %rdi, %r8
    movl %esi, %eax
    movq %rdx, %rcx
    rep stosb
    movq %r8, %rax
    ret
    .size memset, . - memset

    .section .text.memmove, "ax", @progbits
    .globl memcpy
    .globl memmove
    .type memcpy, @function
    .type memmove, @function
memcpy:
memmove:
    movq %rdi, %rax
    movq %rdx, %rcx
    movq %rdi, %r8
    subq %rsi, %r8
    cmpq %rdx, %r8              // does the destination begin inside the source?
    jb 1f
    rep movsb
    ret
1:  leaq -1(%rdi,%rdx), %rdi    // then copy from the end
    leaq -1(%rsi,%rdx), %rsi
    std
    rep movsb
    cld
    ret
    .size memcpy, . - memcpy
    .size memmove, . - memmove

    .section .text.memcmp, "ax", @progbits
    .globl memcmp
    .type memcmp, @function
memcmp:
    xorl %eax, %eax
    movq %rdx, %rcx
    testq %rcx, %rcx
    jz 2f
    repe cmpsb
    je 2f
    movzbl -1(%rdi), %eax
    movzbl -1(%rsi), %ecx
    subl %ecx, %eax
2:  ret
    .size memcmp, . - memcmp

// A smashed stack ends the guest on the spot (an exception is a triple fault).
    .section .text.stack_chk, "ax", @progbits
    .globl __stack_chk_fail
    .type __stack_chk_fail, @function
__stack_chk_fail:
    ud2
    .size __stack_chk_fail, . - __stack_chk_fail

    .section .data.stack_chk, "aw", @progbits
    .globl __stack_chk_guard
    .type __stack_chk_guard, @object
    .balign 8
__stack_chk_guard:
    .quad 0x00000aff0d595ca1
    .size __stack_chk_guard, . - __stack_chk_guard

    .section .note.GNU-stack, "", @progbits
